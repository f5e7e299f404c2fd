import numpy as np
import pytest

from encoders.tiling.tissue.glass_tiles import find_glass_tiles


def sizes(*groups: tuple[int, int]) -> np.ndarray:
    """[rows, 10] of (bytes, how many) …"""
    return np.concatenate([np.full(count, size) for size, count in groups]).reshape(-1, 10)


def test_only_what_is_hardly_larger_than_the_smallest_is_glass() -> None:
    glass = find_glass_tiles(sizes((2_100, 40), (2_300, 20), (2_600, 20), (5_300, 20), (20_000, 20)))

    assert glass.sum() == 60
    assert glass[:6].all()


@pytest.mark.parametrize(
    "tile_bytes",
    [
        sizes((15_000, 50), (24_000, 50)),
        sizes((1_500, 100)),
        sizes((1_500, 60), (2_500, 40)),
        sizes((0, 1), (1_500, 59), (20_000, 40)),
    ],
    ids=["all tissue", "all glass", "faint tissue", "a tile that is not there"],
)
def test_in_doubt_nothing_is_glass(tile_bytes: np.ndarray) -> None:
    assert not find_glass_tiles(tile_bytes).any()


def test_one_tile_is_enough() -> None:
    assert not find_glass_tiles(np.array([[1_500]])).any()
