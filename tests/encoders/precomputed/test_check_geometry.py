"""Coordinates that cannot be what the file, or the slide, says of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.errors import UnusableFeatures
from encoders.precomputed.check_geometry import check_against_slide, check_geometry
from encoders.precomputed.given_features import TileStatements
from encoders.types import SlideFacts
from model_store.manifest import packaged_manifest

TILING = packaged_manifest("demo").first_input.tiling
SLIDE = SlideFacts("aperio", 4480, 3360, 0.25, 40.0)
SAID = TileStatements(patch_size=224, patch_size_level0=448, level0_width=4480, level0_height=3360)


def grid(columns: int = 10, rows: int = 7, step_x: float = 448, step_y: float = 448) -> NDArray[np.int64]:
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x * step_x, y * step_y], axis=-1).reshape(-1, 2).astype(np.int64)


def moved(coords: NDArray[np.int64], x: int, y: int) -> NDArray[np.int64]:
    return coords + np.array([x, y])


def shifted_rows(columns: int = 10) -> NDArray[np.int64]:
    """Brick by brick, half of each over the row below."""
    coords = grid(columns, 7, 448, 224)
    coords[:, 0] += coords[:, 1] % 448
    return coords


def said(**changes: object) -> TileStatements:
    return TileStatements.model_validate(SAID.model_dump() | changes)


def test_tiles_side_by_side_are_taken_whatever_the_file_leaves_out() -> None:
    for coords in (
        grid(),
        grid()[np.random.default_rng(1).random(70) < 0.3],
        grid()[:1],
        np.concatenate([grid(5, 3), moved(grid(5, 3), 17, 1401)]),
    ):
        for statements in (SAID, TileStatements(), TileStatements(patch_size_level0=448)):
            check_geometry(coords, statements, TILING)
            check_against_slide(coords, statements, SLIDE, TILING)


def test_fractions_of_a_pixel_are_no_overlap() -> None:
    coords = np.floor(np.arange(40)[:, np.newaxis] * (443.6, 0)).astype(np.int64)

    check_geometry(coords, TileStatements(patch_size_level0=444), TILING)


@pytest.mark.parametrize(
    "coords",
    [
        grid(20, 7, 224),
        grid(10, 14, step_y=224),
        grid(20, 14, 224, 224),
        grid(10, 7, 400),
        shifted_rows(),
        grid() // 448,
    ],
    ids=["half in x", "half in y", "half scale", "a tenth", "bricks", "tiles as units"],
)
def test_tiles_that_overlap_without_saying_so_are_refused(coords: NDArray[np.int64]) -> None:
    with pytest.raises(UnusableFeatures, match="closer together"):
        check_geometry(coords, SAID, TILING)


def test_units_of_tiles_are_refused_without_any_attribute() -> None:
    with pytest.raises(UnusableFeatures, match="closer together"):
        check_geometry(grid() // 448, TileStatements(), TILING)


def test_tiles_with_gaps_are_refused() -> None:
    with pytest.raises(UnusableFeatures, match="at least 896 px apart"):
        check_geometry(grid(5, 4, 896, 896), SAID, TILING)


@pytest.mark.parametrize(
    "coords", [moved(grid(), 100_000, 0), moved(grid(), 0, 3360), grid(11)], ids=["x", "y", "one column"]
)
def test_tiles_beyond_the_stated_slide_are_refused(coords: NDArray[np.int64]) -> None:
    with pytest.raises(UnusableFeatures, match="beyond the slide's size"):
        check_geometry(coords, SAID, TILING)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"width": 4608, "height": 3360}, "two different values of `width`"),
        ({"tile_px": 224, "target_mpp": 0.5, "mpp": 0.5}, "scale says 224"),
        ({"level0_magnification": 20.0, "target_magnification": 20.0}, "scale says 224"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(UnusableFeatures, match=why):
        check_geometry(grid(), said(**changes), TILING)


@pytest.mark.parametrize(
    ("statements", "coords", "why"),
    [
        (said(level0_width=4608, level0_height=3840), grid(), "slide of 4608 × 3840 px"),
        (said(level0_width=4481), grid(), "slide of 4481"),
        (TileStatements(patch_size_level0=448), grid(11), "beyond this slide's size"),
        (TileStatements(patch_size_level0=448, mpp=0.5), grid(), "0.5 µm/px, this one has 0.25"),
        (TileStatements(patch_size_level0=448, level0_magnification=20.0), grid(), "scanned at 20×"),
        (TileStatements(patch_size_level0=224), grid(step_x=224, step_y=224), "measure 224 px"),
        (TileStatements(), grid(step_x=224, step_y=224), "measure 224 px"),
    ],
)
def test_features_of_another_slide_are_refused(statements: TileStatements, coords: NDArray[np.int64], why: str) -> None:
    with pytest.raises(UnusableFeatures, match=why):
        check_against_slide(coords, statements, SLIDE, TILING)


def test_magnifications_are_nominal() -> None:
    statements = TileStatements(patch_size_level0=224, level0_magnification=20.0)

    check_against_slide(grid(step_x=224, step_y=224), statements, SlideFacts("aperio", 4480, 3360, 0.46, 20.0), TILING)
