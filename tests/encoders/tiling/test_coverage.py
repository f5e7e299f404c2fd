"""What was never scanned is neither glass nor tissue, and a tile that should have pixels and has none is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sparse_slides import TILE_PX, SparseRecipe, draw, tiles_of_tissue, write_aperio, write_as_mirax, write_tiff

from encoders.errors import UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.thumbnail import read_thumbnail
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from model_store.contracts.tile_encoder import TilingSpec

LIMITS = ReaderLimits()
NEARLY_ALL = SparseRecipe(columns=32, rows=26, scanned=(12, 12, 18, 18), tissue=(13, 13, 16, 16))
A_TENTH = SparseRecipe(scanned=(0, 0, 24, 18))


@pytest.fixture
def small_tiles(tiling: TilingSpec) -> TilingSpec:
    """Tiles of the file's own size, so that they can be counted."""
    return tiling.model_copy(update={"tile_px": TILE_PX, "target_mpp": 0.5})


def planned(path: Path, tiling: TilingSpec) -> int:
    return len(make_plan(open_reader(path, LIMITS).reader, tiling, None, LIMITS).coords)


@pytest.mark.parametrize("recipe", [SparseRecipe(), NEARLY_ALL, A_TENTH], ids=["8/10", "95 %", "10 %"])
@pytest.mark.parametrize("fill", [(255, 255, 255), (0, 0, 0), (224, 224, 224)])
def test_what_has_no_tiles_is_neither_glass_nor_tissue(
    tmp_path: Path, small_tiles: TilingSpec, recipe: SparseRecipe, fill: tuple[int, int, int]
) -> None:
    path = write_tiff(tmp_path / "sparse.tif", replace(recipe, fill=fill))

    assert planned(path, small_tiles) == tiles_of_tissue(recipe)


@pytest.mark.parametrize("scanned", [(8, 6, 16, 14), (0, 0, 32, 14)])
def test_in_mirax_single_pixels_tell(
    tmp_path: Path, small_tiles: TilingSpec, scanned: tuple[int, int, int, int]
) -> None:
    recipe = SparseRecipe(columns=32, rows=16, scanned=scanned)
    path = write_as_mirax(tmp_path, recipe)

    assert planned(path, small_tiles) == pytest.approx(tiles_of_tissue(recipe), abs=2)


@pytest.mark.parametrize(
    "write", [lambda folder, it: write_tiff(folder / "lost.tif", it), write_aperio, write_as_mirax]
)
def test_tissue_that_level_0_has_not_is_refused_and_named(
    tmp_path: Path, small_tiles: TilingSpec, write: Callable[[Path, SparseRecipe], Path]
) -> None:
    recipe = SparseRecipe(columns=32, rows=16, scanned=(0, 0, 32, 16), lost=(10, 9, 13, 11))
    path = write(tmp_path, recipe)

    with pytest.raises(UnreadableSlide, match=r"no pixels in the level-0 rectangle \(1\d\d\d, 1\d\d\d\) – \(1"):
        planned(path, small_tiles)


def test_aperios_small_levels_are_read_as_they_are_stored(tmp_path: Path, small_tiles: TilingSpec) -> None:
    """OpenSlide would draw them anew around gaps, without what level 0 lacks."""
    recipe = SparseRecipe(lost=(4, 4, 5, 5))
    reader = open_reader(write_aperio(tmp_path, recipe), LIMITS).reader
    finer = small_tiles.model_copy(update={"target_mpp": 2.0, "tile_px": TILE_PX // 4})

    assert [level.is_exact for level in reader.levels] == [True, False, False]
    assert reader.facts.warnings == ()
    pixels, covered = reader.read_covered(0, 0, 1, recipe.columns * TILE_PX // 4, recipe.rows * TILE_PX // 4)
    truth = cv2.resize(draw(recipe), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert covered is None
    assert np.abs(pixels.astype(np.int16) - truth).mean() <= 1
    # Tiles at that very scale come from level 0 all the same.
    plan = make_plan(reader, finer, None, LIMITS)
    assert (plan.level, len(plan.coords)) == (0, tiles_of_tissue(recipe))


def test_what_no_plan_noticed_is_refused_when_it_is_read(tmp_path: Path, small_tiles: TilingSpec) -> None:
    recipe = SparseRecipe(scanned=(0, 0, 24, 20))
    whole = OpenSlideReader(write_tiff(tmp_path / "whole.tif", recipe), LIMITS)
    plan = make_plan(whole, small_tiles, None, LIMITS)
    x, y = plan.coords[0].tolist()
    sparse = OpenSlideReader(write_tiff(tmp_path / "lost.tif", replace(recipe, lost=(10, 8, 11, 9))), LIMITS)

    with pytest.raises(UnreadableSlide, match=rf"no pixels in the level-0 rectangle \({x}, {y}\)"):
        read_tile(sparse, plan, x, y)
    # Beyond the slide there is nothing to be missed.
    assert (sparse.read_region(24 * TILE_PX - 8, 0, 0, 64, 64)[:, 8:] == 255).all()
    assert (sparse.read_region(24 * TILE_PX + 8, 0, 0, 64, 64) == 255).all()


def test_where_low_levels_are_blank_a_finer_one_is_looked_at(tmp_path: Path, small_tiles: TilingSpec) -> None:
    """Level 2 has no bytes at all; OpenSlide draws nothing, which is not glass."""
    recipe = SparseRecipe(scanned=(0, 0, 24, 20))
    path = write_tiff(tmp_path / "blank.tif", recipe)
    reader = OpenSlideReader(path, LIMITS)
    expected = make_plan(reader, small_tiles, None, LIMITS).coords

    class BlankLow(OpenSlideReader):
        def read_covered(self, x, y, level, width, height):  # type: ignore[no-untyped-def]
            if level == len(self.levels) - 1:
                return np.full((height, width, 3), 255, np.uint8), np.zeros((height, width), dtype=np.bool_)
            return super().read_covered(x, y, level, width, height)

    assert np.array_equal(make_plan(BlankLow(path, LIMITS), small_tiles, None, LIMITS).coords, expected)


def test_the_thumbnail_shows_what_was_not_scanned(tmp_path: Path) -> None:
    reader = open_reader(write_tiff(tmp_path / "sparse.tif", SparseRecipe()), LIMITS).reader

    thumbnail = read_thumbnail(reader, (240, 200), LIMITS)

    assert thumbnail.covered is not None
    assert thumbnail.covered.mean() == pytest.approx(64 / 480, abs=0.01)
    outside = thumbnail.pixels[~thumbnail.covered]
    assert {tuple(it) for it in np.unique(outside, axis=0).tolist()} == {(206, 206, 206), (186, 186, 186)}


def test_a_fully_scanned_slide_costs_no_look(tmp_path: Path, small_tiles: TilingSpec) -> None:
    reader = open_reader(write_tiff(tmp_path / "whole.tif", SparseRecipe(scanned=(0, 0, 24, 20))), LIMITS).reader

    assert read_thumbnail(reader, (240, 200), LIMITS).covered is None
    empty = reader.empty_tiles(0)
    assert empty is not None
    assert not empty.any()
