"""A small DICOM archive over real HTTP, which can be away, refuse, break off or know nothing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pydicom

from server.uploads.dicom.archive import DicomwebArchive

LOGIN = "Basic ZXllcGllY2U6cw=="  # eyepiece:s


class Archive:
    """What it holds, and how it behaves; `asked` are the paths of requests in their order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.cut_at: int | None = None
        self.location = ""
        self.content_type = 'multipart/related; type="application/dicom"; boundary=b'
        self.files: dict[str, bytes] = {}
        self.listed: list[dict[str, Any]] = []
        self.port = 0
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Keep an instance."""
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        where = f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances"
        self.files[f"{where}/{dataset.SOPInstanceUID}"] = path.read_bytes()
        item = {
            "00080008": {"vr": "CS", "Value": list(dataset.ImageType)},
            "00080018": {"vr": "UI", "Value": [dataset.SOPInstanceUID]},
        }
        self.listed.append({"where": where, "item": item})

    def described(self, **changes: Any) -> DicomwebArchive:
        """As the operator names it."""
        said = {"name": "pacs", "tenants": ["default"], "url": f"http://127.0.0.1:{self.port}", "plain_http": True}
        return DicomwebArchive(**said | {"user": "eyepiece", "password": "s"} | changes)

    @property
    def fetched(self) -> list[str]:
        """UIDs of instances that were asked for, in their order."""
        return [path.rsplit("/", 1)[-1] for path in self.asked if path in self.files]

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, content type, body."""
        self.asked.append(path)
        if self.status != 200:
            return self.status, "text/plain", b"no"
        if headers.get("Authorization") != LOGIN:
            return 401, "text/plain", b""
        if path in self.files:
            content = self.files[path]
            if self.content_type.startswith("application/dicom"):
                return 200, self.content_type, content
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--\r\n"
            return 200, self.content_type, body
        items = [it["item"] for it in self.listed if it["where"] == path]
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 1000))
        return 200, "application/dicom+json", json.dumps(items[offset : offset + limit]).encode()


@contextmanager
def running_archive(paths: Sequence[Path]) -> Iterator[Archive]:
    """An archive that holds these instances."""
    archive = Archive(paths)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            asked = dict(part.partition("=")[::2] for part in query.split("&") if part)
            status, kind, body = archive.answer(path, asked, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if archive.location:
                self.send_header("Location", archive.location)
            self.end_headers()
            is_file = path in archive.files
            self.wfile.write(body[: archive.cut_at] if is_file and archive.cut_at is not None else body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    archive.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
