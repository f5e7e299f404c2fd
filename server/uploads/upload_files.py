"""The files of an upload on disk: their bytes written and hashed by threads while the next ones are received."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.errors import QuotaExceeded, UploadTooLarge
from server.telemetry.metrics import Metrics
from server.uploads.one_slide import SourceFile


@dataclass(frozen=True)
class UploadLimits:
    """Sizes in bytes; uploads stop before the disk has less than `disk_reserve_bytes` left, and when more has come
    than is left of the tenant's quota."""

    max_upload_bytes: int
    disk_reserve_bytes: int
    quota_left_bytes: int | None = None


class UploadBudget:
    """What one upload may still take, all its files together."""

    def __init__(self, folder: Path, limits: UploadLimits, metrics: Metrics) -> None:
        self.folder = folder
        self._limits = limits
        self._metrics = metrics
        self._size_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Counts bytes that have come; raises UploadTooLarge or QuotaExceeded."""
        self._size_bytes += size_bytes
        if self._size_bytes > self._limits.max_upload_bytes:
            limit_gib = self._limits.max_upload_bytes / 2**30
            raise UploadTooLarge(f"The slide is larger than the limit of {limit_gib:g} GiB.")
        left = self._limits.quota_left_bytes
        if left is not None and self._size_bytes > left:
            raise QuotaExceeded(
                "The slide is larger than what is left of your tenant's quota; delete slides, or ask the operator for "
                "more."
            )

    def check_disk(self) -> None:
        """Raises OSError (ENOSPC) when the reserve would be touched."""
        if shutil.disk_usage(self.folder).free < self._limits.disk_reserve_bytes:
            raise OSError(errno.ENOSPC, "disk reserve reached")

    def note_written(self, size_bytes: int) -> None:
        """For the metrics."""
        self._metrics.upload_bytes.inc(size_bytes)


class StagedFile:
    """Collects bytes; what is taken of them is written and hashed, by two threads."""

    def __init__(self, path: Path, relative_path: str, room: UploadBudget) -> None:
        self._path = path
        self._relative_path = relative_path
        self._room = room
        self._descriptor = -1  # opened by the first write: one piece of a body may begin a thousand tiny files
        self._pending: list[bytes] = []
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self.is_complete = False

    def add(self, data: bytes) -> None:
        """The bytes that come next; raises UploadTooLarge."""
        self._room.take(len(data))
        self._pending.append(data)

    def take(self) -> "Piece":
        """All that is pending, to be written and hashed."""
        chunks, self._pending = self._pending, []
        return Piece(self, b"".join(chunks), self.is_complete)

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
        """The bytes that come next, as in `write`."""
        self._sha256.update(data)

    def close(self) -> None:
        """May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def source_file(self) -> SourceFile:
        """What was written and hashed."""
        return SourceFile(self._path, self._relative_path, self._size_bytes, self._sha256.hexdigest())


class WrittenFile(Protocol):
    """Where a piece belongs."""

    def write(self, data: bytes, *, is_last: bool) -> None:
        """The bytes that come next; `is_last`: no more do."""

    def hash(self, data: bytes) -> None:
        """The same bytes, beside it in another thread."""


@dataclass(frozen=True)
class Piece:
    """Bytes that come next in `file`."""

    file: WrittenFile
    data: bytes
    is_last: bool


@dataclass(frozen=True)
class Batch:
    """What of some files is to be written and hashed."""

    pieces: Sequence[Piece]
    room: UploadBudget

    def write(self) -> None:
        """Raises OSError."""
        self.room.check_disk()
        for piece in self.pieces:
            piece.file.write(piece.data, is_last=piece.is_last)

    def hash(self) -> None:
        """Beside `write`, in another thread."""
        for piece in self.pieces:
            piece.file.hash(piece.data)


class BackgroundWriter:
    """Writes and hashes a batch, a thread each, while the next one is received.

    Leaving waits for the threads even when cancelled: they write to a descriptor that is closed, and its number given
    to another upload, right after.
    """

    def __init__(self) -> None:
        self._running: asyncio.Future[tuple[None, None]] | None = None

    async def __aenter__(self) -> "BackgroundWriter":
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

    async def write(self, batch: Batch) -> None:
        """Begin with `batch` when the one before is done; raises that one's OSError."""
        if self._running is not None:
            await asyncio.shield(self._running)
        self._running = asyncio.gather(asyncio.to_thread(batch.write), asyncio.to_thread(batch.hash))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
