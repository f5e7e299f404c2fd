"""Objects that grow: what has come of an upload, wherever the slide store is. Blocking; for threads.

    local folder   <key>                    one file, written at its end, and linked to where it belongs at last
    bucket         <key>/<begin>-<length>   segments of some megabytes

An object of a bucket cannot be appended to, and a multipart upload of S3 can be gone on with only by whoever began it:
obstore has no way to name it. Segments are seen by every process, and need no disk of ours (decision 58).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import obstore

from server.storage.store_errors import translated

_PIECE_BYTES = 4 * 2**20
# A request to a bucket costs some ten milliseconds, whatever its size.
_SEGMENT_BYTES = 16 * 2**20
_SEGMENT = re.compile(r"(\d{20})-(\d{20})")


class GrowingObject(Protocol):
    """What has come so far. One process writes at a time."""

    @property
    def write_bytes(self) -> int:
        """How much to collect before it is written."""

    def size_bytes(self) -> int:
        """0 when nothing has come."""

    def write(self, begin: int, data: bytes) -> None:
        """Bytes from `begin` on, which is the end. Raises OSError or the store's errors."""

    def keep(self) -> None:
        """Returns when what was written survives a power cut."""

    def cut(self, size_bytes: int) -> None:
        """Forget what comes behind; to sizes that it had between two writes."""

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from `begin` to `end`, in pieces."""

    def bring(self, path: Path) -> None:
        """Its bytes at `path`, a new file of the staging folder."""

    def take(self, path: Path) -> None:
        """In place of all it has: the bytes of `path`, a file of the staging folder, which may be gone then."""

    def remove(self) -> None:
        """Nothing is left."""


class GrowingFile:
    """In a local store. Opened for every write: some microseconds against megabytes, and nothing stays open."""

    write_bytes = _PIECE_BYTES

    def __init__(self, path: Path) -> None:
        self._path = path

    def size_bytes(self) -> int:
        """See GrowingObject."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def write(self, begin: int, data: bytes) -> None:
        """See GrowingObject."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, begin)
                begin, view = begin + written, view[written:]
        finally:
            os.close(descriptor)

    def keep(self) -> None:
        """See GrowingObject."""
        if self.size_bytes():
            descriptor = os.open(self._path, os.O_WRONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def cut(self, size_bytes: int) -> None:
        """See GrowingObject."""
        if self.size_bytes() > size_bytes:
            os.truncate(self._path, size_bytes)

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """See GrowingObject."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(begin)
            while begin < end and (piece := file.read(min(_PIECE_BYTES, end - begin))):
                begin += len(piece)
                yield piece

    def bring(self, path: Path) -> None:
        """A second name: no byte is copied, and this one stays until it is removed."""
        os.link(self._path, path)

    def take(self, path: Path) -> None:
        """See GrowingObject."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, self._path)

    def remove(self) -> None:
        """See GrowingObject."""
        self._path.unlink(missing_ok=True)


class BucketObject:
    """In a bucket."""

    write_bytes = _SEGMENT_BYTES

    def __init__(self, objects: Any, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix

    def size_bytes(self) -> int:
        """See GrowingObject."""
        return sum(length for _, length, _ in self._segments())

    def write(self, begin: int, data: bytes) -> None:
        """See GrowingObject."""
        with translated():
            for start in range(0, len(data), _SEGMENT_BYTES):
                piece = data[start : start + _SEGMENT_BYTES]
                obstore.put(self._objects, f"{self._prefix}/{begin + start:020d}-{len(piece):020d}", piece)

    def keep(self) -> None:
        """Every write was."""

    def cut(self, size_bytes: int) -> None:
        """See GrowingObject."""
        with translated():
            for begin, _, key in list(self._listed()):
                if begin >= size_bytes:
                    obstore.delete(self._objects, key)

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """See GrowingObject."""
        with translated():
            for first, length, key in self._segments():
                span = max(begin, first) - first, min(end, first + length) - first
                if span[0] < span[1]:
                    for piece in obstore.get(self._objects, key, options={"range": span}).stream(_PIECE_BYTES):
                        yield bytes(piece)

    def bring(self, path: Path) -> None:
        """See GrowingObject."""
        with path.open("wb") as file:
            for piece in self.read(0, self.size_bytes()):
                file.write(piece)

    def take(self, path: Path) -> None:
        """See GrowingObject."""
        self.remove()
        begin = 0
        with path.open("rb") as file:
            while piece := file.read(_SEGMENT_BYTES):
                self.write(begin, piece)
                begin += len(piece)

    def remove(self) -> None:
        """See GrowingObject."""
        self.cut(0)

    def _segments(self) -> list[tuple[int, int, str]]:
        """Begin, length and key of those that follow each other from 0 on. Of two with one begin, which a writer that
        was thought dead may leave, the longer: both hold what the client has there."""
        found: list[tuple[int, int, str]] = []
        end = 0
        for segment in sorted(self._listed(), key=lambda it: (it[0], -it[1])):
            if segment[0] == end:
                found.append(segment)
                end += segment[1]
        return found

    def _listed(self) -> Iterator[tuple[int, int, str]]:
        with translated():
            for batch in obstore.list(self._objects, self._prefix):
                for entry in batch:
                    key = str(entry["path"])
                    name = _SEGMENT.fullmatch(key.rsplit("/", 1)[-1])
                    if name is not None:
                        yield int(name[1]), int(name[2]), key
