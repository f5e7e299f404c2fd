"""Decoded tiles in memory that the reader's child and its parent share: a ring of slots, one batch in each.

The parent makes the memory before the child exists and the child inherits its descriptor. The child writes, the parent
maps it read-only. A hostile child may change a slot at any time, also while the parent reads it, so nothing may be
decided on pixels in a slot that a later look must confirm; any bytes are valid pixels.
"""

import fcntl
import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.decode_buffer import PAST_ALIGNMENT

# <linux/memfd.h>, since Linux 6.3; where sysctl vm.memfd_noexec is 2 nothing else is granted.
_MFD_NOEXEC_SEAL = 0x0008


@dataclass(frozen=True)
class RingShape:
    """`slots` batches one after another, each uint8 [batch_tiles, tile_px, tile_px, 3], RGB."""

    slots: int
    batch_tiles: int
    tile_px: int

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile."""
        return self.tile_px * self.tile_px * 3

    @property
    def slot_bytes(self) -> int:
        """Bytes of one batch."""
        return self.batch_tiles * self.tile_bytes


def ring_shape(batch_tiles: int, tile_px: int, limits: ReaderLimits) -> RingShape:
    """As many slots as `limits` grant; raises ValueError when the memory does not hold one batch."""
    fit = limits.ring_bytes // RingShape(1, batch_tiles, tile_px).slot_bytes
    if fit < 1:
        raise ValueError(f"a batch of {batch_tiles} tiles of {tile_px} px is larger than {limits.ring_bytes} bytes")
    return RingShape(min(fit, limits.ring_slots), batch_tiles, tile_px)


class TileRing:
    """One process's mapping of the memory; it stays mapped as long as an array from `slot` lives."""

    def __init__(self, descriptor: int, shape: RingShape, *, writable: bool) -> None:
        """Raises OSError or ValueError when the memory cannot be mapped or is smaller than `shape`."""
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self.shape = shape
        self._memory = mmap.mmap(descriptor, PAST_ALIGNMENT + shape.slots * shape.slot_bytes, access=access)

    def slot(self, index: int, count: int) -> NDArray[np.uint8]:
        """The first `count` tiles of a slot, uncopied: uint8 [count, tile_px, tile_px, 3], writeable in the child."""
        shape, side = self.shape, self.shape.tile_px
        first_byte = PAST_ALIGNMENT + index * shape.slot_bytes
        pixels: NDArray[np.uint8] = np.frombuffer(
            self._memory, dtype=np.uint8, count=count * shape.tile_bytes, offset=first_byte
        )
        return pixels.reshape(count, side, side, 3)


def make_memory(slots_bytes: int) -> int:
    """A descriptor of zeros without a name, for slots of `slots_bytes` in all; what nobody touches costs nothing.

    The caller closes it. The slots begin a few bytes in, because a mapping begins where no decode buffer should.
    On Linux its size is sealed: a child that could shrink it would kill the parent by SIGBUS on the next read.
    Elsewhere it is an unlinked temporary file, which is weaker: a hostile child can do just that, and its pages may be
    written to disk.
    """
    size_bytes = PAST_ALIGNMENT + slots_bytes
    if not hasattr(os, "memfd_create"):
        return _unlinked_file(size_bytes)
    descriptor = _memory_file()
    try:
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("eyepiece-tiles", flags | _MFD_NOEXEC_SEAL)
    except OSError:  # an older kernel does not know the flag
        return os.memfd_create("eyepiece-tiles", flags)


def _unlinked_file(size_bytes: int) -> int:
    with tempfile.TemporaryFile(prefix="eyepiece-tiles-") as file:
        os.ftruncate(file.fileno(), size_bytes)
        return os.dup(file.fileno())
