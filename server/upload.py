"""Step 1, upload: a request body becomes a `ReceivedFile`, hashed while it is written, in constant memory."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from encoders.errors import UnsupportedFormat
from server.errors import InvalidRequest, StorageFull, StorageUnavailable, UploadTooLarge
from server.metrics import Metrics

FIELD = "file"
# Big enough that a thread hop per write is noise, small enough for many uploads at once.
_WRITE_BYTES = 2**20
_MAX_FILENAME_CHARS = 255
# A file name may be absurdly long; it is shortened, not refused. What is longer still is no file name.
_MAX_HEADER_BYTES = 64 * 1024
# Fields beside the file mean nothing here; they are skipped, but not for ever.
_MAX_SKIPPED_BYTES = 2**20


@dataclass(frozen=True)
class UploadLimits:
    """Sizes in bytes; uploads stop before the disk has less than `disk_reserve_bytes` left."""

    max_upload_bytes: int
    disk_reserve_bytes: int


@dataclass(frozen=True)
class ReceivedFile:
    """A staged upload; `slide_id` is the SHA-256 of its bytes. `filename` can be PHI: metadata only."""

    path: Path
    slide_id: str
    size_bytes: int
    filename: str


async def receive_file(
    body: AsyncIterator[bytes],
    content_type: str,
    staging_path: Path,
    limits: UploadLimits,
    metrics: Metrics,
) -> ReceivedFile:
    """Write the one field `file` of a multipart body to `staging_path`.

    On any failure the staged file is gone.

    Raises:
        InvalidRequest: not multipart, no or several files, or cut off.
        UnsupportedFormat: an empty file.
        UploadTooLarge: beyond the limit.
        StorageFull: the disk is.
    """
    try:
        with staging_path.open("xb") as file:
            sink = _HashedFile(file.fileno(), staging_path, limits, metrics)
            form = await _pump(body, content_type, sink)
        return form.received(staging_path)
    except OSError as error:
        staging_path.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full; delete slides or add space, then upload again.") from error
        raise StorageUnavailable("The upload cannot be written to disk; try again shortly.") from error
    except BaseException:  # a client that hangs up cancels us: its half file must not stay either
        staging_path.unlink(missing_ok=True)
        raise


async def _pump(body: AsyncIterator[bytes], content_type: str, sink: "_HashedFile") -> "_OneFileForm":
    try:
        form = _OneFileForm(_boundary(content_type), sink)
        async for chunk in body:
            form.feed(chunk)
            if sink.pending_bytes >= _WRITE_BYTES:
                await _in_thread(sink.flush)
        await _in_thread(sink.finish)
        return form
    except FormParserError as error:
        raise InvalidRequest("The body is not valid multipart/form-data.") from error
    except ClientDisconnect as error:
        raise InvalidRequest("The upload was cut off; send it again.") from error


async def _in_thread(write: Callable[[], None]) -> None:
    """Waits for the thread even when cancelled: it writes to a descriptor that is closed, and its number given to
    another upload, as soon as we return."""
    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.gather(writing, return_exceptions=True)
        raise


class _HashedFile:
    """Collects bytes and writes them in large pieces, counting and hashing."""

    def __init__(self, descriptor: int, path: Path, limits: UploadLimits, metrics: Metrics) -> None:
        self._descriptor = descriptor
        self._folder = path.parent
        self._limits = limits
        self._metrics = metrics
        self._pending = bytearray()
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    @property
    def pending_bytes(self) -> int:
        return len(self._pending)

    @property
    def slide_id(self) -> str:
        return self._sha256.hexdigest()

    def add(self, data: bytes) -> None:
        self.size_bytes += len(data)
        if self.size_bytes > self._limits.max_upload_bytes:
            limit_gib = self._limits.max_upload_bytes / 2**30
            raise UploadTooLarge(f"The file is larger than the limit of {limit_gib:g} GiB.")
        self._pending += data

    def flush(self) -> None:
        if shutil.disk_usage(self._folder).free < self._limits.disk_reserve_bytes:
            raise OSError(errno.ENOSPC, "disk reserve reached")
        data = bytes(self._pending)
        self._pending.clear()
        self._sha256.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._metrics.upload_bytes.inc(len(data))

    def finish(self) -> None:
        self.flush()
        os.fsync(self._descriptor)  # a slide that was answered with 202 survives a power cut


class _OneFileForm:
    """A multipart form in which only `file` counts; other fields are skipped. Raises FormParserError."""

    def __init__(self, boundary: bytes, sink: _HashedFile) -> None:
        self._sink = sink
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._in_file = False
        self._complete = False
        self._skipped_bytes = 0
        self.filename: str | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_size=_MAX_HEADER_BYTES,
        )

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def received(self, path: Path) -> ReceivedFile:
        if not self._complete:
            raise InvalidRequest("The upload was cut off before its end; send it again.")
        if self.filename is None:
            raise InvalidRequest("Send the slide as multipart/form-data with one field named `file`.")
        if self._sink.size_bytes == 0:
            raise UnsupportedFormat("The file is empty; send a whole-slide image.")
        return ReceivedFile(path, self._sink.slide_id, self._sink.size_bytes, self.filename)

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._in_file = options.get(b"name") == FIELD.encode()
        if self._in_file:
            if self.filename is not None:
                raise InvalidRequest("Send one slide at a time: the form has several fields named `file`.")
            self.filename = _display_name(options.get(b"filename", b""))

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._sink.add(data[start:end])
            return
        self._skipped_bytes += end - start
        if self._skipped_bytes > _MAX_SKIPPED_BYTES:
            raise InvalidRequest("Send the slide as the one field `file`; the other fields are too large.")

    def _end_part(self) -> None:
        self._in_file = False

    def _end(self) -> None:
        self._complete = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest("Send the slide as multipart/form-data with one field named `file`.")
    return options[b"boundary"]


def _display_name(raw: bytes) -> str:
    """The last part of the name, printable, or `slide`; it is shown, never used as a path."""
    name = raw.decode("utf-8", errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in name if character.isprintable())
    return printable[:_MAX_FILENAME_CHARS] or "slide"
