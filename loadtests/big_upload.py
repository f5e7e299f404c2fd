"""A slide of many gigabytes through POST /v1/slides, or /v1/uploads: how fast, and how much memory the API takes.

    python -m loadtests.big_upload
    python -m loadtests.big_upload --long
    python -m loadtests.big_upload --resumable

A server without models is started here. The slide is a small synthetic one with a tail of zeros, which the client has
in no file; it is received, hashed and stored like any other. In each round the same number of bytes is also written to
the same disk, and hashed, by one thread that does nothing else: no upload can be faster than the slower of the two.

Before each of them the machine rests for some seconds. A virtual machine gives memory that became free back to its
host, and getting it again for the page cache costs up to five times what writing does (measured: 0.5 against 2.8 CPU
seconds a gigabyte): whoever comes right after a deletion would be measured with memory, the next one without.
"""

import argparse
import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPResponse
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]

from benchmarks.take_turns import Spread, spin_share, spread
from benchmarks.write_results import table
from loadtests.own_server import OwnServer, own_server
from loadtests.results_file import verdict, write_result
from synthetic.write_slide import write_synthetic_slide

LEAST_RATIO = 0.8
MOST_GROWTH_MB = 64.0
SHORT_MB, LONG_MB = 500, 5_000
_MB = 10**6
_PIECE_BYTES = 2**20
_SAMPLE_EVERY_S = 0.05
_REST_S = 5.0
_BOUNDARY = "eyepiece-load-test"


@dataclass(frozen=True)
class Round:
    """Megabytes (10^6 bytes) a second of each; what the upload cost the API: CPU seconds, resident memory."""

    disk_mb_per_s: float
    sha256_mb_per_s: float
    upload_mb_per_s: float
    api_cpu_s_per_gb: float
    before_mb: float
    peak_mb: float

    @property
    def ratio(self) -> float:
        """To the slower of disk and SHA-256."""
        return self.upload_mb_per_s / min(self.disk_mb_per_s, self.sha256_mb_per_s)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    size_mb = options.mb or (LONG_MB if options.long else SHORT_MB)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ.setdefault("EYEPIECE_MAX_UPLOAD_BYTES", str(max(64 * 2**30, 2 * size_mb * _MB)))
        with own_server(Path(folder), "demo", only_api=True) as server:
            rounds = [
                _round(server, size_mb * _MB, number, resumable=options.resumable) for number in range(options.rounds)
            ]
    print(report(size_mb, rounds))
    content = {
        "size_mb": size_mb,
        "targets": {"ratio": LEAST_RATIO, "growth_mb": MOST_GROWTH_MB},
        "spin_share": round(spin_share(), 3),
        "rounds": [asdict(it) for it in rounds],
    }
    print(f"\n{write_result('resumable_upload' if options.resumable else 'big_upload', content)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help=f"{LONG_MB} MB in place of {SHORT_MB}")
    parser.add_argument("--mb", type=int, help="10^6 bytes")
    parser.add_argument("--resumable", action="store_true", help="by tus, in one PATCH without a cut")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; twice the size is needed there")
    return parser


def _round(server: OwnServer, size_bytes: int, number: int, *, resumable: bool) -> Round:
    slide = server.data_dir / "big.svs"
    write_synthetic_slide(slide, seed=number, width_px=1024, height_px=768)
    time.sleep(_REST_S)
    disk_s = _disk_write_s(server.data_dir / "written", size_bytes)
    sha256_s = _sha256_s(size_bytes)
    cpu_s = server.cpu_s("api")
    time.sleep(_REST_S)
    with _watched(server.process("api")) as memory:
        upload_s = _upload_s(server, slide, size_bytes, resumable=resumable)
    cpu_s, size_mb = server.cpu_s("api") - cpu_s, size_bytes / _MB
    return Round(
        disk_mb_per_s=size_mb / disk_s,
        sha256_mb_per_s=size_mb / sha256_s,
        upload_mb_per_s=size_mb / upload_s,
        api_cpu_s_per_gb=cpu_s / size_mb * 1000,
        before_mb=memory[0] / _MB,
        peak_mb=max(memory) / _MB,
    )


def _disk_write_s(path: Path, size_bytes: int) -> float:
    """The same bytes in the same pieces, with the same fsync at the end."""
    piece = bytes(_PIECE_BYTES)
    started = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for _ in range(size_bytes // _PIECE_BYTES):
            os.write(descriptor, piece)
        os.fsync(descriptor)
        return time.perf_counter() - started
    finally:
        os.close(descriptor)
        path.unlink()


def _sha256_s(size_bytes: int) -> float:
    piece, digest = bytes(_PIECE_BYTES), hashlib.sha256()
    started = time.perf_counter()
    for _ in range(size_bytes // _PIECE_BYTES):
        digest.update(piece)
    digest.digest()
    return time.perf_counter() - started


@contextmanager
def _watched(process: psutil.Process) -> Iterator[list[int]]:
    """Resident bytes of the process, looked at again and again while the block runs; the first is from before."""
    samples, over = [process.memory_info().rss], threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_EVERY_S):
            samples.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        over.set()
        watcher.join()


def _upload_s(server: OwnServer, slide: Path, size_bytes: int, *, resumable: bool) -> float:
    """Sends the slide and zeros up to `size_bytes` from memory: the client takes next to nothing of the cores."""
    if resumable:
        return _resumable_upload_s(server, slide, size_bytes)
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="big.svs"\r\n\r\n'.encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    address = urlsplit(server.api_url)
    length = len(head) + size_bytes + len(tail)
    headers = (
        f"POST /v1/slides HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nConnection: close\r\n\r\n"
    )
    started = time.perf_counter()
    with closing(socket.create_connection((address.hostname, address.port))) as connection:
        connection.sendall(headers.encode() + head)
        response = _send_body(connection, slide.read_bytes(), size_bytes, tail)
    seconds = time.perf_counter() - started
    httpx.delete(f"{server.api_url}{response.headers['Location']}", timeout=60).raise_for_status()
    return seconds


def _resumable_upload_s(server: OwnServer, slide: Path, size_bytes: int) -> float:
    """The same bytes by tus."""
    address, version = urlsplit(server.api_url), {"Tus-Resumable": "1.0.0"}
    started = time.perf_counter()
    created = httpx.post(f"{server.api_url}/v1/uploads", headers=version | {"Upload-Length": str(size_bytes)})
    headers = (
        f"PATCH {created.headers['Location']} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {size_bytes}\r\n"
        "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
        "Connection: close\r\n\r\n"
    )
    with closing(socket.create_connection((address.hostname, address.port))) as connection:
        connection.sendall(headers.encode())
        response = _send_body(connection, slide.read_bytes(), size_bytes, b"")
    seconds = time.perf_counter() - started
    slide_url = f"{server.api_url}/v1/slides/{response.headers['Eyepiece-Slide-Id']}"
    httpx.delete(slide_url, timeout=60).raise_for_status()
    return seconds


def _send_body(connection: socket.socket, content: bytes, size_bytes: int, tail: bytes) -> HTTPResponse:
    """The slide, zeros up to `size_bytes`, and what closes the body; raises RuntimeError when it is refused."""
    zeros = bytes(_PIECE_BYTES)
    connection.sendall(content)
    for start in range(len(content), size_bytes, _PIECE_BYTES):
        connection.sendall(zeros[: size_bytes - start])
    connection.sendall(tail)
    response = HTTPResponse(connection)
    response.begin()
    body = response.read()
    if response.status not in (202, 204):
        raise RuntimeError(f"{response.status}: {body.decode()}")
    return response


def report(size_mb: int, rounds: Sequence[Round]) -> str:
    """The table, and whether the targets are met."""
    header = ("round", "disk MB/s", "SHA-256 MB/s", "upload MB/s", "ratio", "API CPU s/GB", "API MB before", "at most")
    rows = [
        (
            str(number),
            *(f"{it:.0f}" for it in (one.disk_mb_per_s, one.sha256_mb_per_s, one.upload_mb_per_s)),
            f"{one.ratio:.2f}",
            f"{one.api_cpu_s_per_gb:.1f}",
            f"{one.before_mb:.0f}",
            f"{one.peak_mb:.0f}",
        )
        for number, one in enumerate(rounds, 1)
    ]
    ratio: Spread = spread([it.ratio for it in rounds])
    # The first upload also makes the API load what it needs for any.
    growth_mb = median(it.peak_mb - it.before_mb for it in rounds)
    return "\n".join(
        [
            f"{size_mb} MB each:",
            table(header, rows),
            "",
            f"Upload ÷ min(disk, SHA-256): {ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f}), "
            f"target {LEAST_RATIO:g}, {verdict(ratio.median >= LEAST_RATIO)}.",
            f"The API grew by {growth_mb:.0f} MB, target {MOST_GROWTH_MB:.0f}, {verdict(growth_mb <= MOST_GROWTH_MB)}.",
        ]
    )


if __name__ == "__main__":
    main()
