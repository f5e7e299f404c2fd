from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from small_recipes import small

from benchmarks.synthetic_slides import synthetic_slide, write_slide
from benchmarks.tissue_field import TissueField
from benchmarks.tissue_torus import draw_tissue_torus
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.tissue.find_tissue import find_tissue


def pixels_of(path: Path, level: int) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        size = slide.level_dimensions[level]
        return np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))


def distance_of_greys(one: np.ndarray, other: np.ndarray) -> float:
    greys = [cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(int) for pixels in (one, other)]
    return float(np.abs(greys[0] - greys[1]).mean())


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(small_s420: Path, tmp_path: Path) -> None:
    recipe = small("s420")
    write_slide(tmp_path / "again", recipe)

    assert (tmp_path / "again").read_bytes() == small_s420.read_bytes()
    assert not np.array_equal(TissueField(recipe).some, TissueField(small("t240")).some)


def test_openslide_finds_an_aperio_slide_with_levels_that_show_the_same_picture(small_s420: Path) -> None:
    with openslide.OpenSlide(small_s420) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.properties["openslide.mpp-x"] == "0.25"
        assert slide.level_dimensions == ((3_554, 3_022), (888, 755), (222, 188))

    for level, factor in ((1, 4), (2, 16)):
        shown = pixels_of(small_s420, level)
        full = pixels_of(small_s420, 0)[: shown.shape[0] * factor, : shown.shape[1] * factor]
        reduced = cv2.resize(full, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
        apart = [distance_of_greys(shown[:, shift:], reduced[:, : reduced.shape[1] - shift]) for shift in (0, 1)]
        assert apart[0] < 5  # two JPEGs
        assert apart[0] < apart[1] / 2


def test_tiles_are_as_large_as_scanners_make_them(small_s420: Path) -> None:
    with tifffile.TiffFile(small_s420) as tiff:
        page = tiff.pages[0]
        counts = np.array(page.databytecounts).reshape(12, 14)
    field = TissueField(small("s420"))

    assert field.all.sum() > 5
    assert 15_000 < counts[field.all].mean() < 21_000
    assert (~field.some).sum() > 5
    assert 1_200 < counts[~field.some].min() <= counts[~field.some].max() < 1_700


def test_the_tissue_is_found_where_the_recipe_put_it(small_s420: Path) -> None:
    found = find_tissue(pixels_of(small_s420, 1)).mean()

    assert found == pytest.approx(small("s420").tissue_share, abs=0.06)


@pytest.mark.parametrize("name", ["s420", "pow2", "t240"])
def test_the_fast_reader_takes_it_and_agrees_with_openslide(name: str, small_slide: Callable[[str], Path]) -> None:
    chosen = open_reader(small_slide(name), ReaderLimits())
    oracle = OpenSlideReader(small_slide(name), ReaderLimits())

    assert (chosen.kind, chosen.reason) == ("fast_tiff", "eligible")
    for level in range(len(oracle.levels)):
        regions = [reader.read_region(0, 0, level, 500, 400) for reader in (chosen.reader, oracle)]
        assert np.array_equal(*regions)


def test_rgb_tiles_have_no_marker_of_their_colours_and_are_not_magenta(small_slide: Callable[[str], Path]) -> None:
    path = small_slide("t240")

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert page.photometric == tifffile.PHOTOMETRIC.RGB
        tiff.filehandle.seek(page.dataoffsets[0])
        tile = tiff.filehandle.read(page.databytecounts[0])
    assert b"Adobe" not in tile
    assert b"JFIF" not in tile
    frame = tile.index(b"\xff\xc0")
    assert [tile[frame + 10 + 3 * index] for index in range(3)] == [0, 1, 2]
    tissue = TissueField(small("t240")).some.repeat(240, axis=0).repeat(240, axis=1)
    pixels = pixels_of(path, 0)
    glass = pixels[~tissue[: pixels.shape[0], : pixels.shape[1]]]
    assert np.ptp(glass.mean(axis=0)) < 2
    assert glass.mean() > 235


def test_a_generic_tiff_tells_its_resolution_in_pixels_per_cm(small_slide: Callable[[str], Path]) -> None:
    with openslide.OpenSlide(small_slide("pow2")) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert slide.level_downsamples == pytest.approx((1, 2, 4), rel=0.01)


def test_the_torus_has_no_seam() -> None:
    torus = draw_tissue_torus(0, 256)

    ends = torus.tile(torus.side_px - 128, torus.side_px - 128, 256, 256).astype(int)
    inner = torus.tile(500, 500, 256, 256).astype(int)
    across = np.abs(ends[:, 127] - ends[:, 128]).mean()
    assert across <= np.abs(np.diff(inner, axis=1)).mean()
    assert np.array_equal(torus.tile(torus.side_px + 3, 5, 9, 9), torus.tile(3, 5, 9, 9))


def test_a_kept_slide_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(path: Path, recipe: object) -> None:
        drawn.append(recipe)
        path.touch()

    monkeypatch.setattr("benchmarks.synthetic_slides.write_slide", draw)

    first, second = (synthetic_slide("s420", tmp_path / "slides") for _ in range(2))

    assert first == second
    assert len(drawn) == 1
    assert synthetic_slide("pow2", tmp_path / "slides") != first


def test_a_failure_leaves_no_half_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of ink")

    monkeypatch.setattr("benchmarks.synthetic_slides.draw_tissue_torus", fail)

    with pytest.raises(RuntimeError, match="out of ink"):
        write_slide(tmp_path / "slide.svs", small("s420"))

    assert list(tmp_path.iterdir()) == []
