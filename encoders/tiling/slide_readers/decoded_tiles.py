"""The last decoded JPEG tiles: a grid that does not match them touches each tile up to four times."""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.slide_reader import Scale


class TileKey(NamedTuple):
    """Which JPEG tile, and how it is reduced."""

    level: int
    column: int
    row: int
    scale: Scale


class DecodedTiles:
    """Least recently used tiles, at most `capacity_bytes` of pixels. Safe to call from threads.

    Two threads that miss the same tile both decode it: they are a batch apart, so waiting would cost more.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._tiles: OrderedDict[TileKey, NDArray[np.uint8]] = OrderedDict()
        self._held_bytes = 0
        self._lock = Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels held now."""
        return self._held_bytes

    def get(self, key: TileKey) -> NDArray[np.uint8] | None:
        """The tile's pixels, to read only, or None."""
        with self._lock:
            pixels = self._tiles.get(key)
            if pixels is not None:
                self._tiles.move_to_end(key)
            return pixels

    def put(self, key: TileKey, pixels: NDArray[np.uint8]) -> None:
        """Keeps `pixels`, which nobody may write to any more, in place of the least recently used."""
        with self._lock:
            if key in self._tiles or pixels.nbytes > self._capacity_bytes:
                return
            self._tiles[key] = pixels
            self._held_bytes += pixels.nbytes
            while self._held_bytes > self._capacity_bytes:
                self._held_bytes -= self._tiles.popitem(last=False)[1].nbytes
