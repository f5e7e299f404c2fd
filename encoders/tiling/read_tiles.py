"""Planned tiles as pixels: decoded by threads into slots, announced in the plan's order, bounded in memory, counted."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.shared_work import SharedWork, finish
from encoders.tiling.slide_readers.slide_reader import Scale, SlideReader
from encoders.types import TilePlan

# Neighbours in a row share a slide's JPEG tiles where the grids differ, so a thread reads a run of them; short enough
# that all threads work on one batch and the first one is ready soon.
_RUN_TILES = 16


class BatchSlots(Protocol):
    """Memory for a few batches, used in turn: batch i of a reading goes to slot i modulo their number."""

    def __len__(self) -> int: ...

    def view(self, slot: int, count: int) -> NDArray[np.uint8]:
        """Uint8 [count, tile_px, tile_px, 3], C-contiguous, to be written."""

    def take_freed(self, *, wait: bool) -> int:
        """How many announced slots may be written anew since the last call, oldest first; with `wait` at least one."""


@dataclass(frozen=True)
class FilledSlot:
    """Tiles `first … first + count - 1` of the plan lie in `slot`."""

    first: int
    count: int
    slot: int


def read_tiles(
    reader: SlideReader, plan: TilePlan, slots: BatchSlots, batch_tiles: int, threads: int, first_tile: int = 0
) -> Iterator[FilledSlot]:
    """The plan's tiles from `first_tile` on, in batches, the last one shorter; decodes ahead as far as slots are free.

    The calling thread is one of `threads`: one that only waited and announced took as much CPU time for every batch as
    one or two tiles take. Raises UnreadableSlide at the first damaged tile in the plan's order, naming its level-0
    rectangle.
    """
    ahead = deque(_batches(len(plan.coords), first_tile, batch_tiles, len(slots)))
    waiting: deque[tuple[FilledSlot, list[SharedWork]]] = deque()
    free, delivered = len(slots), 0
    with _helpers(threads - 1) as help_with:
        while ahead or waiting:
            while ahead and free:
                batch = ahead.popleft()
                runs = _runs(reader, plan, batch, slots.view(batch.slot, batch.count))
                waiting.append((batch, runs))
                for run in runs:
                    help_with(run.do)
                free -= 1
            if waiting:
                batch, runs = waiting.popleft()
                finish(runs)
                delivered += batch.count
                yield batch
            if ahead:  # waits only when there is nothing to announce, or both sides would wait for each other
                free += slots.take_freed(wait=not waiting and not free)
    assert delivered == len(plan.coords) - first_tile, "every planned tile is delivered once"


def read_tile(
    reader: SlideReader, plan: TilePlan, x: int, y: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """RGB uint8 [tile_px, tile_px, 3] of the tile whose corner is level-0 (x, y); in `out`, which is of that shape."""
    if plan.unscanned == "black":
        return _read_black(reader, plan, x, y, out)
    if plan.read_px == plan.tile_px:
        return reader.read_region(x, y, plan.level, plan.read_px, plan.read_px, out)
    factor = _whole_factor(plan)
    if factor is not None:
        return reader.read_reduced(x, y, plan.level, plan.read_px, plan.read_px, Scale(factor, plan.reduction), out)
    pixels = reader.read_region(x, y, plan.level, plan.read_px, plan.read_px)
    # By area when it shrinks; the up to 10 % that a slightly coarse slide is enlarged are linear.
    way = cv2.INTER_AREA if plan.read_px > plan.tile_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (plan.tile_px, plan.tile_px), dst=out, interpolation=way), dtype=np.uint8)


def _read_black(
    reader: SlideReader, plan: TilePlan, x: int, y: int, out: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """A region of level 0: black where the slide has no pixels, white beyond its edge."""
    side = plan.tile_px
    pixels, has_pixels = reader.read_covered(x, y, 0, side, side)
    if has_pixels is not None:
        inside = np.zeros_like(has_pixels)
        inside[: max(0, plan.height - y), : max(0, plan.width - x)] = True
        pixels = np.where((inside & ~has_pixels)[..., np.newaxis], np.uint8(0), pixels)
    if out is None:
        return pixels
    out[:] = pixels
    return out


def _whole_factor(plan: TilePlan) -> int | None:
    """2 or 4 where a tile is exactly that much finer than the model wants it."""
    factor, rest = divmod(plan.read_px, plan.tile_px)
    return factor if not rest and factor in (2, 4) else None


def _batches(total: int, first_tile: int, batch_tiles: int, slots: int) -> Iterator[FilledSlot]:
    for index, first in enumerate(range(first_tile, total, batch_tiles)):
        yield FilledSlot(first, min(batch_tiles, total - first), index % slots)


@contextmanager
def _helpers(threads: int) -> Iterator[Callable[[Callable[[], None]], object]]:
    """Takes work for so many more threads, in the order given; what none has begun on leaving is dropped."""
    if not threads:
        yield lambda _: None
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            yield pool.submit
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _runs(reader: SlideReader, plan: TilePlan, batch: FilledSlot, pixels: NDArray[np.uint8]) -> list[SharedWork]:
    corners = plan.coords[batch.first : batch.first + batch.count]
    runs = [slice(start, start + _RUN_TILES) for start in range(0, batch.count, _RUN_TILES)]
    return [SharedWork(partial(_read_run, reader, plan, corners[run], pixels[run])) for run in runs]


def _read_run(reader: SlideReader, plan: TilePlan, corners: NDArray[np.int64], pixels: NDArray[np.uint8]) -> None:
    for (x, y), tile in zip(corners, pixels, strict=True):
        read_tile(reader, plan, int(x), int(y), out=tile)
