"""SHA-256 of an upload, computed while its bytes come, over many requests.

A hash that has begun cannot be written down, so it lives in the process that received the bytes. Another process, or
this one after a restart, reads what came before once more: a little with every piece that it receives, so that it has
caught up long before a large upload ends.
"""

import hashlib
from collections import OrderedDict

from server.errors import StorageUnavailable
from server.storage.growing_objects import GrowingObject

# With every piece that comes, so many times its size is read and hashed of what came before.
_TIMES_A_PIECE = 3
_REMEMBERED = 1024


class RunningHash:
    """Knows the first `hashed_bytes` of an upload. Blocks; for one thread at a time."""

    def __init__(self) -> None:
        self.hashed_bytes = 0
        self._sha256 = hashlib.sha256()

    def copy(self) -> "RunningHash":
        """One that goes on by itself."""
        copied = RunningHash()
        copied.hashed_bytes, copied._sha256 = self.hashed_bytes, self._sha256.copy()
        return copied

    def add(self, data: GrowingObject, begin: int, piece: bytes) -> None:
        """Bytes that come next; all before `begin` was written already."""
        if self.hashed_bytes < begin:
            self._read(data, min(begin, self.hashed_bytes + _TIMES_A_PIECE * max(len(piece), 1)))
        if self.hashed_bytes == begin:
            self._sha256.update(piece)
            self.hashed_bytes += len(piece)

    def digest_of(self, data: GrowingObject, size_bytes: int) -> str:
        """Of all `size_bytes`, in hex; what is not known yet is read.

        Raises:
            StorageUnavailable: not so many are there.
        """
        self._read(data, size_bytes)
        if self.hashed_bytes != size_bytes:
            raise StorageUnavailable("The store has fewer bytes of the upload than were written; try again shortly.")
        return self._sha256.hexdigest()

    def _read(self, data: GrowingObject, end: int) -> None:
        for piece in data.read(self.hashed_bytes, end):
            self._sha256.update(piece)
            self.hashed_bytes += len(piece)


class RunningHashes:
    """Those of this process, by the upload's id; the one used longest ago goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, RunningHash] = OrderedDict()

    def take(self, upload_id: str, offset_bytes: int) -> RunningHash:
        """The upload's, to be kept again when its bytes were written; a new one where this process knows none, or
        knows bytes that are not there any more."""
        known = self._kept.pop(upload_id, None)
        return known if known is not None and known.hashed_bytes <= offset_bytes else RunningHash()

    def keep(self, upload_id: str, known: RunningHash) -> None:
        """For the next request."""
        self._kept[upload_id] = known
        if len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)

    def drop(self, upload_id: str) -> None:
        """The upload is over."""
        self._kept.pop(upload_id, None)
