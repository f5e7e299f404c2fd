"""Uploads a file with tuspy, which leaves sockets and files to the garbage collector, so in a process of its own.

    python tuspy_upload.py ENDPOINT FILE CHUNK_BYTES

The first chunk is sent by one uploader, the rest by another that goes on, with checksums.
"""

import sys

from tusclient.client import TusClient

endpoint, path, chunk_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {"chunk_size": chunk_bytes, "metadata": {"filename": "Müller.svs"}, "retries": 60, "retry_delay": 1}
client = TusClient(endpoint)
begun = client.uploader(path, **options)
begun.upload_chunk()
again = client.uploader(path, url=begun.url, upload_checksum=True, **options)
print(again.offset)
again.upload()
print(again.offset)
