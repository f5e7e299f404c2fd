"""The bytes of one request go behind those that an upload has, written and hashed while the next ones come."""

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette.requests import ClientDisconnect

from server.errors import ChecksumMismatch, StorageFull, StorageUnavailable, UploadTooLong
from server.storage.growing_objects import GrowingObject
from server.uploads.resumable.running_hash import RunningHash
from server.uploads.resumable.upload_locks import Hold
from server.uploads.upload_files import BackgroundWriter, Batch, Piece, UploadBudget

CHECKSUM_ALGORITHMS = ("sha256", "sha1")


@dataclass(frozen=True)
class Checksum:
    """What the client says of the bytes of one request."""

    algorithm: str
    digest: bytes


class Ending(Enum):
    """How a body ended."""

    WHOLE = "it came to its end"
    CUT_OFF = "its client hung up"
    TAKEN_OVER = "nothing came for a while, and another request wants to go on"


@dataclass(frozen=True)
class Appended:
    """`end_bytes` is how far the upload has come."""

    end_bytes: int
    ending: Ending


class AppendedFile:
    """An upload's bytes as `BackgroundWriter` wants them."""

    def __init__(
        self, data: GrowingObject, begin: int, known: RunningHash, checksum: Checksum | None, room: UploadBudget
    ) -> None:
        self._data = data
        self._known = known
        self._room = room
        self._hashed_to = begin
        self.end = begin
        self._digest: Any = None if checksum is None else hashlib.new(checksum.algorithm)

    def write(self, data: bytes, *, is_last: bool) -> None:
        """Raises OSError or the store's errors."""
        self._data.write(self.end, data)
        self.end += len(data)
        self._room.note_written(len(data))

    def hash(self, data: bytes) -> None:
        """The bytes that come next, as in `write`."""
        self._known.add(self._data, self._hashed_to, data)
        self._hashed_to += len(data)
        if self._digest is not None:
            self._digest.update(data)

    def matches(self, checksum: Checksum | None) -> bool:
        """Whether the bytes are what the client says."""
        return checksum is None or self._digest.digest() == checksum.digest


async def append_bytes(
    body: AsyncIterator[bytes],
    data: GrowingObject,
    span: tuple[int, int],
    known: RunningHash,
    checksum: Checksum | None,
    room: UploadBudget,
    hold: Hold,
) -> Appended:
    """Write a body behind the first `span[0]` bytes of an upload that ends at `span[1]`. What came of a body that is
    cut off stays, unless it has a checksum.

    Raises:
        ChecksumMismatch, UploadTooLong: then the upload is as it was.
        StorageFull, StorageUnavailable: what was written stays.
    """
    file = AppendedFile(data, span[0], known, checksum, room)
    try:
        ending = await _pump(body, file, span, data.write_bytes, room, hold)
        if not file.matches(checksum):
            await asyncio.to_thread(data.cut, span[0])
            if ending is Ending.WHOLE:
                raise ChecksumMismatch("The bytes are not what the checksum says, and were dropped; send them again.")
            return Appended(span[0], ending)
        await asyncio.to_thread(data.keep)
        return Appended(file.end, ending)
    except UploadTooLong:
        await asyncio.to_thread(data.cut, span[0])
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full; delete slides or add space, then go on.") from error
        raise StorageUnavailable("The upload cannot be written to disk; go on shortly.") from error


async def _pump(
    body: AsyncIterator[bytes],
    file: AppendedFile,
    span: tuple[int, int],
    write_bytes: int,
    room: UploadBudget,
    hold: Hold,
) -> Ending:
    """Whatever came is written, also when the rest does not come."""
    collected, collected_bytes, come = list[bytes](), 0, span[0]
    loop = asyncio.get_running_loop()
    ending = Ending.WHOLE

    def batch() -> Batch:
        piece = b"".join(collected)
        collected.clear()
        return Batch([Piece(file, piece, is_last=False)], room)

    async with BackgroundWriter() as writer:
        try:
            async with asyncio.timeout(None) as patience:
                hold.stop = lambda: patience.reschedule(loop.time())
                if hold.is_over:
                    hold.stop()
                async for chunk in body:
                    hold.heard()
                    come += len(chunk)
                    if come > span[1]:
                        raise UploadTooLong("More bytes came than the upload's length; none of them were kept.")
                    collected.append(chunk)
                    collected_bytes += len(chunk)
                    if collected_bytes >= write_bytes:
                        collected_bytes = 0
                        await writer.write(batch())
                        hold.heard()  # a slow disk of ours is not the client's silence
        except ClientDisconnect:
            ending = Ending.CUT_OFF
        except TimeoutError:
            ending = Ending.TAKEN_OVER
        finally:
            hold.stop = lambda: None
        await writer.write(batch())
    return ending
