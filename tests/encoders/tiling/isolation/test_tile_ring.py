import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.tile_ring import RingShape, TileRing, make_memory, ring_shape


@pytest.fixture(params=["sealed", "file"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A descriptor of 64 KiB, made the one way and the other; closed after the test."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = make_memory(2**16)
    yield descriptor
    os.close(descriptor)


def test_what_one_side_writes_the_other_reads_and_cannot_change(memory: int) -> None:
    shape = RingShape(slots=3, batch_tiles=4, tile_px=16)
    writer = TileRing(memory, shape, writable=True)
    reader = TileRing(memory, shape, writable=False)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), dtype=np.uint8)

    for slot in range(3):
        writer.slot(slot, 4)[:] = pixels[slot]

    for slot in range(3):
        assert np.array_equal(reader.slot(slot, 4), pixels[slot])
        assert np.array_equal(reader.slot(slot, 2), pixels[slot, :2])
    with pytest.raises(ValueError, match="read-only"):
        reader.slot(0, 1)[:] = 0


def test_an_array_keeps_the_memory_mapped_and_nothing_else_does(memory: int) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this platform does not list what a process has mapped")
    shape = RingShape(slots=1, batch_tiles=1, tile_px=16)
    pixels = TileRing(memory, shape, writable=True).slot(0, 1)

    pixels[:] = 9
    inode = f" {os.fstat(memory).st_ino} "
    mapped = inode in maps.read_text()
    del pixels

    assert mapped
    assert inode not in maps.read_text()


def test_slots_are_decode_buffers_and_fill_the_memory_made_for_them() -> None:
    shape = RingShape(slots=3, batch_tiles=2, tile_px=16)
    descriptor = make_memory(shape.slots * shape.slot_bytes)
    try:
        ring = TileRing(descriptor, shape, writable=True)
        slots = [ring.slot(index, shape.batch_tiles) for index in range(shape.slots)]
    finally:
        os.close(descriptor)

    assert {slot.ctypes.data % 32 for slot in slots} == {16}, "see decode_buffer"


def test_more_than_there_is_cannot_be_mapped(memory: int) -> None:
    with pytest.raises(ValueError, match="mmap length"):
        TileRing(memory, RingShape(slots=100, batch_tiles=1, tile_px=16), writable=False)


def test_the_size_is_sealed_and_the_seals_are_too() -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this platform has no sealed memory")
    descriptor = make_memory(4_096)
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_SHRINK
        assert seals & fcntl.F_SEAL_GROW
        assert seals & fcntl.F_SEAL_SEAL
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("ring_bytes", "slots"), [(2**30, 4), (4 * 8 * 768, 4), (4 * 8 * 768 - 1, 3), (2 * 8 * 768, 2), (8 * 768, 1)]
)
def test_there_are_as_many_slots_as_the_limits_grant(ring_bytes: int, slots: int) -> None:
    shape = ring_shape(8, 16, ReaderLimits(ring_bytes=ring_bytes, ring_slots=4))

    assert shape == RingShape(slots, 8, 16)
    assert shape.slots * shape.slot_bytes <= ring_bytes


def test_memory_for_less_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="8 tiles"):
        ring_shape(8, 16, ReaderLimits(ring_bytes=8 * 768 - 1))


def test_the_default_holds_four_batches_of_a_published_model() -> None:
    assert ring_shape(256, 256, ReaderLimits()).slots == 4
