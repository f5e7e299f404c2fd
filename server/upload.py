"""Step 1, upload: a request body becomes a `ReceivedSlide`, hashed while it is written, in constant memory.

A slide is one file, or several that only make sense together: the form field `file` may be repeated, and then the
file names are paths within the slide.
"""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from encoders.errors import UnsupportedFormat
from server.errors import InvalidRequest, StorageFull, StorageUnavailable, UploadTooLarge
from server.metrics import Metrics
from server.slide_source import SourceFile, slide_id_of

FIELD = "file"
_ASK_FOR_FILE = "Send the slide as multipart/form-data with one field named `file`."
# Big enough that the disk does not wait for the next one, small enough for many uploads at once, each of which holds
# two: 1 MiB gave 0.65–0.76 of the disk's speed, 4 MiB 0.80–0.96 (loadtests/big_upload.py).
_WRITE_BYTES = 4 * 2**20
_MAX_FILENAME_CHARS = 255
# A file name may be absurdly long; it is shortened, not refused. What is longer still is no file name.
_MAX_HEADER_BYTES = 64 * 1024
# RFC 2046 allows 70; the parser, 256.
_MAX_BOUNDARY_BYTES = 256
_MAX_FILES = 5_000
_MAX_OPEN_FILES = 16
# Fields beside the file mean nothing here; they are skipped, but not for ever.
_MAX_SKIPPED_BYTES = 2**20


@dataclass(frozen=True)
class UploadLimits:
    """Sizes in bytes; uploads stop before the disk has less than `disk_reserve_bytes` left."""

    max_upload_bytes: int
    disk_reserve_bytes: int


@dataclass(frozen=True)
class ReceivedSlide:
    """A staged upload in a folder of its own, which the caller removes."""

    folder: Path
    files: tuple[SourceFile, ...]

    @property
    def slide_id(self) -> str:
        """The slide's identity."""
        return slide_id_of(self.files)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)


async def receive_slide(
    body: AsyncIterator[bytes], content_type: str, folder: Path, limits: UploadLimits, metrics: Metrics
) -> ReceivedSlide:
    """Write the files of a multipart body into the new folder `folder`.

    On any failure the folder is gone.

    Raises:
        InvalidRequest: not multipart, no file, names that cannot be one slide's, or cut off.
        UnsupportedFormat: an empty file.
        UploadTooLarge: beyond the limit.
        StorageFull: the disk is.
    """
    try:
        folder.mkdir()
        form = _SlideForm(content_type, _Room(folder, limits, metrics))
        try:
            await _pump(body, form)
        finally:
            form.close()
        return ReceivedSlide(folder, form.files())
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full; delete slides or add space, then upload again.") from error
        raise StorageUnavailable("The upload cannot be written to disk; try again shortly.") from error
    except BaseException:  # a client that hangs up cancels us: its half file must not stay either
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def _pump(body: AsyncIterator[bytes], form: "_SlideForm") -> None:
    try:
        async with _BehindWriter() as writer:
            async for chunk in body:
                form.feed(chunk)
                if form.wants_writing:
                    await writer.write(form.take())
            await writer.write(form.take())
    except FormParserError as error:
        raise InvalidRequest("The body is not valid multipart/form-data.") from error
    except ClientDisconnect as error:
        raise InvalidRequest("The upload was cut off; send it again.") from error


@dataclass(frozen=True)
class _Batch:
    """What of some files is to be written and hashed."""

    pieces: Sequence["_Piece"]
    room: "_Room"

    def write(self) -> None:
        self.room.check_disk()
        for piece in self.pieces:
            piece.file.write(piece.data, is_last=piece.is_last)

    def hash(self) -> None:
        for piece in self.pieces:
            piece.file.hash(piece.data)


class _BehindWriter:
    """Writes and hashes a batch, a thread each, while the next one is received.

    Leaving waits for the threads even when cancelled: they write to a descriptor that is closed, and its number given
    to another upload, right after.
    """

    def __init__(self) -> None:
        self._running: asyncio.Future[tuple[None, None]] | None = None

    async def __aenter__(self) -> "_BehindWriter":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._running is None:
            return
        if kind is None:
            try:
                await asyncio.shield(self._running)
            except asyncio.CancelledError:
                await asyncio.gather(self._running, return_exceptions=True)
                raise
        else:
            await asyncio.gather(self._running, return_exceptions=True)

    async def write(self, batch: _Batch) -> None:
        """Begin with `batch` when the one before is done; raises that one's OSError."""
        if self._running is not None:
            await asyncio.shield(self._running)
        self._running = asyncio.gather(asyncio.to_thread(batch.write), asyncio.to_thread(batch.hash))


class _Room:
    """What one upload may still take, all its files together."""

    def __init__(self, folder: Path, limits: UploadLimits, metrics: Metrics) -> None:
        self.folder = folder
        self._limits = limits
        self._metrics = metrics
        self._size_bytes = 0

    def take(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > self._limits.max_upload_bytes:
            limit_gib = self._limits.max_upload_bytes / 2**30
            raise UploadTooLarge(f"The slide is larger than the limit of {limit_gib:g} GiB.")

    def check_disk(self) -> None:
        if shutil.disk_usage(self.folder).free < self._limits.disk_reserve_bytes:
            raise OSError(errno.ENOSPC, "disk reserve reached")

    def note_written(self, size_bytes: int) -> None:
        self._metrics.upload_bytes.inc(size_bytes)


class _HashedFile:
    """Collects bytes; what is taken of them is written and hashed, by two threads."""

    def __init__(self, path: Path, relative_path: str, room: _Room) -> None:
        self._path = path
        self._relative_path = relative_path
        self._room = room
        self._descriptor = -1  # opened by the first write: one piece of a body may begin a thousand tiny files
        self._pending: list[bytes] = []
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self.is_complete = False

    def add(self, data: bytes) -> None:
        self._room.take(len(data))
        self._pending.append(data)

    def take(self) -> "_Piece":
        """All that is pending, to be written and hashed."""
        chunks, self._pending = self._pending, []
        return _Piece(self, b"".join(chunks), self.is_complete)

    def write(self, data: bytes, *, is_last: bool) -> None:
        """To disk; the last piece is safe there when this returns, and the file closed."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        _write_all(self._descriptor, data)
        self._size_bytes += len(data)
        self._room.note_written(len(data))
        if is_last:
            os.fsync(self._descriptor)  # a slide that was answered with 202 survives a power cut
            self.close()

    def hash(self, data: bytes) -> None:
        self._sha256.update(data)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def source_file(self) -> SourceFile:
        return SourceFile(self._path, self._relative_path, self._size_bytes, self._sha256.hexdigest())


@dataclass(frozen=True)
class _Piece:
    """Bytes that come next in `file`."""

    file: _HashedFile
    data: bytes
    is_last: bool


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class _SlideForm:
    """A multipart form in which only `file` counts; other fields are skipped. Raises FormParserError."""

    def __init__(self, content_type: str, room: _Room) -> None:
        self._room = room
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._open: list[_HashedFile] = []
        self._received: list[_HashedFile] = []
        self._current: _HashedFile | None = None
        self._complete = False
        self._skipped_bytes = self._pending_bytes = 0
        self._parser = MultipartParser(
            _boundary(content_type),
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

    @property
    def wants_writing(self) -> bool:
        """Enough bytes for one go, or many small files that would each keep a descriptor."""
        return self._pending_bytes >= _WRITE_BYTES or len(self._open) > _MAX_OPEN_FILES

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def take(self) -> _Batch:
        """What is pending of every file."""
        pieces = [file.take() for file in self._open]
        self._open = [piece.file for piece in pieces if not piece.is_last]
        self._pending_bytes = 0
        return _Batch(pieces, self._room)

    def close(self) -> None:
        for file in self._received:
            file.close()

    def files(self) -> tuple[SourceFile, ...]:
        if not self._complete:
            raise InvalidRequest("The upload was cut off before its end; send it again.")
        if not self._received:
            raise InvalidRequest(_ASK_FOR_FILE)
        files = tuple(file.source_file() for file in self._received)
        if any(file.size_bytes == 0 for file in files):
            raise UnsupportedFormat("A file is empty; send a whole-slide image.")
        if len(files) > 1:
            require_one_tree([file.relative_path for file in files])
        return files

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") != FIELD.encode():
            return
        if len(self._received) >= _MAX_FILES:
            raise InvalidRequest(f"A slide of more than {_MAX_FILES} files is not accepted.")
        name = options.get(b"filename", b"").decode("utf-8", errors="replace").replace("\\", "/")
        self._current = _HashedFile(self._room.folder / str(len(self._received)), name, self._room)
        self._open.append(self._current)
        self._received.append(self._current)

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._current is not None:
            self._current.add(data[start:end])
            self._pending_bytes += end - start
            return
        self._skipped_bytes += end - start
        if self._skipped_bytes > _MAX_SKIPPED_BYTES:
            raise InvalidRequest("Send the slide as the one field `file`; the other fields are too large.")

    def _end_part(self) -> None:
        if self._current is not None:
            self._current.is_complete = True
        self._current = None

    def _end(self) -> None:
        self._complete = True


def require_one_tree(paths: Sequence[str]) -> None:
    """Check that the names of several files can be paths within one slide.

    Raises:
        InvalidRequest: absolute, leaving the slide, unprintable, too long, or two of them in each other's way.
    """
    for path in paths:
        steps = path.split("/")
        if not path.isprintable() or len(path) > _MAX_FILENAME_CHARS or any(step in ("", ".", "..") for step in steps):
            raise InvalidRequest("The files of a slide need plain relative paths as file names.")
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if len(set(paths)) < len(paths) or folders & set(paths):
        raise InvalidRequest("Two files of the slide have the same name.")


def display_name(path: str) -> str:
    """The last part of a file's name, printable, or `slide`; it is shown, never used as a path."""
    printable = "".join(character for character in path.rsplit("/", 1)[-1] if character.isprintable())
    return printable[:_MAX_FILENAME_CHARS] or "slide"


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= _MAX_BOUNDARY_BYTES:
        raise InvalidRequest(_ASK_FOR_FILE)
    return boundary
