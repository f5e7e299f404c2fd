"""Planned tiles as pixels: decoded by threads, delivered in the plan's order, bounded in memory, counted."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_reader import SlideReader
from encoders.types import TileBatch, TilePlan


def read_tiles(reader: SlideReader, plan: TilePlan, batch_tiles: int, threads: int) -> Iterator[TileBatch]:
    """All tiles of the plan in batches, the last one shorter; at most `threads + 1` batches exist at a time.

    Raises UnreadableSlide at the first damaged tile in the plan's order, naming its level-0 rectangle.
    """
    waiting: deque[Future[TileBatch]] = deque()
    delivered = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for first in range(0, len(plan.coords), batch_tiles):
                waiting.append(pool.submit(_read_batch, reader, plan, first, batch_tiles))
                if len(waiting) > threads:
                    batch = waiting.popleft().result()
                    delivered += len(batch.pixels)
                    yield batch
            while waiting:
                batch = waiting.popleft().result()
                delivered += len(batch.pixels)
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    assert delivered == len(plan.coords), "every planned tile is delivered once"


def read_tile(reader: SlideReader, plan: TilePlan, x: int, y: int) -> NDArray[np.uint8]:
    """RGB uint8 [tile_px, tile_px, 3] of the tile whose corner is level-0 (x, y)."""
    pixels = reader.read_region(x, y, plan.level, plan.read_px, plan.read_px)
    if plan.read_px == plan.tile_px:
        return pixels
    # By area when it shrinks; the up to 10 % that a slightly coarse slide is enlarged are linear.
    way = cv2.INTER_AREA if plan.read_px > plan.tile_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (plan.tile_px, plan.tile_px), interpolation=way), dtype=np.uint8)


def _read_batch(reader: SlideReader, plan: TilePlan, first: int, batch_tiles: int) -> TileBatch:
    corners = plan.coords[first : first + batch_tiles]
    pixels = np.empty((len(corners), plan.tile_px, plan.tile_px, 3), dtype=np.uint8)
    for index, (x, y) in enumerate(corners):
        pixels[index] = read_tile(reader, plan, int(x), int(y))
    return TileBatch(first, pixels)
