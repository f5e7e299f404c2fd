import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.decoded_tiles import DecodedTiles, TileKey

TILE_BYTES = 4 * 4 * 3


def key(column: int, factor: int = 1) -> TileKey:
    return TileKey(0, column, 0, factor)


def tile(value: int) -> NDArray[np.uint8]:
    return np.full((4, 4, 3), value, dtype=np.uint8)


def test_the_least_recently_used_tile_goes_first() -> None:
    tiles = DecodedTiles(2 * TILE_BYTES)
    tiles.put(key(1), tile(1))
    tiles.put(key(2), tile(2))
    tiles.get(key(1))

    tiles.put(key(3), tile(3))

    held = [column for column in (1, 2, 3) if tiles.get(key(column)) is not None]
    assert held == [1, 3]
    assert tiles.held_bytes == 2 * TILE_BYTES


def test_a_tile_put_twice_counts_once() -> None:
    tiles = DecodedTiles(10 * TILE_BYTES)

    tiles.put(key(1), tile(1))
    tiles.put(key(1), tile(1))

    assert tiles.held_bytes == TILE_BYTES


def test_what_does_not_fit_drives_nothing_out() -> None:
    tiles = DecodedTiles(TILE_BYTES)
    tiles.put(key(1), tile(1))

    tiles.put(key(2), np.zeros((8, 8, 3), dtype=np.uint8))

    assert tiles.get(key(1)) is not None
    assert tiles.get(key(2)) is None


def test_a_reduced_tile_is_another_one() -> None:
    tiles = DecodedTiles(10 * TILE_BYTES)
    tiles.put(key(1), tile(1))

    assert tiles.get(key(1, factor=2)) is None
