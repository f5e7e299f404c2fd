"""Tiles for a viewer: against openslide-python's DeepZoom generator, and against pictures that are known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile
from numpy.typing import NDArray
from openslide.deepzoom import DeepZoomGenerator
from sparse_slides import SparseRecipe, write_as_mirax, write_tiff

from encoders.errors import UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.deep_zoom import TILE_PX, DeepZoom, TilePlace
from encoders.tiling.pictures.view_pictures import JPEG_QUALITY, OVERVIEW_PX, ViewPictures
from encoders.tiling.slide_readers.choose_reader import open_reader

LIMITS = ReaderLimits()
# For coarser ones the other implementation reads the whole slide again for each tile.
_COMPARED_LEVELS = 3


def pyramid_of(pictures: ViewPictures) -> DeepZoom:
    return pictures._pyramid


def decoded(jpeg: bytes) -> NDArray[np.int16]:
    return simplejpeg.decode_jpeg(jpeg, "RGB").astype(np.int16)  # type: ignore[no-any-return]


def addresses(pyramid: DeepZoom, level: int, most: int = 2) -> Iterator[tuple[int, int]]:
    """Some tiles of a level, its corners among them."""
    columns, rows = pyramid.grid(level)
    every = [(column, row) for row in range(rows) for column in range(columns)]
    yield from every if len(every) <= most else [every[int(i)] for i in np.linspace(0, len(every) - 1, most)]


def open_pictures(path: Path) -> ViewPictures:
    return ViewPictures(open_reader(path, LIMITS).reader, LIMITS)


def compare_with_openslide(path: Path, allowed: float) -> None:
    """At full size to the bit, the JPEG too; reduced by another filter (Lanczos), alike but for the finest detail."""
    other = DeepZoomGenerator(openslide.OpenSlide(path), TILE_PX, 0)
    pictures = open_pictures(path)
    pyramid = pyramid_of(pictures)
    assert pyramid.level_count == other.level_count
    for level in range(pyramid.level_count):
        assert pyramid.size(level) == other.level_dimensions[level]
        assert pyramid.grid(level) == other.level_tiles[level]
        if level < pyramid.level_count - _COMPARED_LEVELS:
            continue
        for column, row in addresses(pyramid, level):
            theirs = np.asarray(other.get_tile(level, (column, row)).convert("RGB"))
            ours = pictures.tile_jpeg(level, column, row)
            if level == pyramid.level_count - 1:
                assert ours == simplejpeg.encode_jpeg(np.ascontiguousarray(theirs), JPEG_QUALITY, "RGB", "420")
            elif theirs.shape == (TILE_PX, TILE_PX, 3):  # cut ones it makes a pixel too narrow, or stretches
                again = decoded(simplejpeg.encode_jpeg(np.ascontiguousarray(theirs), JPEG_QUALITY, "RGB", "420"))
                differing = cv2.blur(decoded(ours) - again, (8, 8))
                assert np.abs(differing).mean() < allowed, (level, column, row)


def test_a_drawn_slide_looks_as_openslide_shows_it(sample_slide: Path) -> None:
    compare_with_openslide(sample_slide, allowed=1)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("cmu-1-small-region.svs", 1),
        ("tcga-cr-7395-ts1.svs", 3),  # its second level, which we take, was compressed anew
        ("ospy_boxes.tiff", 1),
        ("ospy_boxes_dicom/boxes_0.dcm", 1),
    ],
)
def test_a_real_slide_looks_as_openslide_shows_it(shared_slides: Path, name: str, allowed: float) -> None:
    compare_with_openslide(shared_slides / name, allowed)


def write_known(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """A slide of one level with sides that no level halves evenly, stored without loss."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(60, 250, (height // 20 + 2, width // 20 + 2, 3)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 4, (height, width, 1))
    rgb = np.clip(picture, 0, 255).astype(np.uint8)
    tifffile.imwrite(
        path,
        rgb,
        tile=(256, 256),
        photometric="rgb",
        compression="deflate",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return rgb


def test_every_pixel_is_the_mean_of_what_it_covers(tmp_path: Path) -> None:
    width, height = 2_345, 307  # the small picture is not a whole number of times smaller
    rgb = write_known(tmp_path / "known.tiff", width, height).astype(np.float64)
    pictures = open_pictures(tmp_path / "known.tiff")
    pyramid = pyramid_of(pictures)

    for level in range(pyramid.level_count):
        scale = pyramid.scale(level)
        down, right = np.arange(0, height, scale), np.arange(0, width, scale)
        rows, columns = np.minimum(scale, height - down), np.minimum(scale, width - right)
        sums = np.add.reduceat(np.add.reduceat(rgb, down, 0), right, 1)
        true = sums / (rows[:, np.newaxis] * columns)[..., np.newaxis]
        for column, row in addresses(pyramid, level):
            place = pyramid.place(level, column, row)
            assert place is not None
            seen = pictures._tile(place)
            part = true[place.top : place.top + place.height, place.left : place.left + place.width]
            assert seen.shape == part.shape
            assert np.abs(seen - part).mean() < 2, level
            if scale == 1:
                assert np.array_equal(seen, part)


class CountedReader:
    """A reader that counts what is read of it."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def read_covered(self, *where: Any) -> Any:
        self.reads += 1
        return self._reader.read_covered(*where)


def test_without_a_pyramid_the_small_picture_is_made_once_for_all_coarse_tiles(tmp_path: Path) -> None:
    write_known(tmp_path / "known.tiff", 2_345, 307)
    reader = CountedReader(open_reader(tmp_path / "known.tiff", LIMITS).reader)
    pictures = ViewPictures(reader, LIMITS)

    pictures.tile_jpeg(0, 0, 0)
    first = reader.reads
    for level in range(pyramid_of(pictures).level_count - 2):
        for column, row in addresses(pyramid_of(pictures), level):
            pictures.tile_jpeg(level, column, row)
    pictures.thumbnail(OVERVIEW_PX)
    pictures.thumbnail(64)
    assert (first > 0, reader.reads) == (True, first)

    last = pyramid_of(pictures).level_count - 1
    pictures.tile_jpeg(last, 0, 0)
    pictures.tile_jpeg(last - 1, 0, 0)
    assert reader.reads == first + 2


def test_a_tile_of_a_large_slide_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_known(tmp_path / "known.tiff", 1_300, 900)
    place = TilePlace(2, 100, 60, 256, 256)
    whole = open_pictures(tmp_path / "known.tiff")._read(place, 0)
    monkeypatch.setattr("encoders.tiling.pictures.view_pictures.BLOCK_PX", 150)
    reader = CountedReader(open_reader(tmp_path / "known.tiff", LIMITS).reader)

    assert np.array_equal(ViewPictures(reader, LIMITS)._read(place, 0), whole)
    assert reader.reads == 16


@pytest.mark.parametrize("kind", ["tiff", "mirax"])
def test_what_was_not_scanned_is_white_in_tiles_and_hatched_in_thumbnails(tmp_path: Path, kind: str) -> None:
    recipe = SparseRecipe(columns=8, rows=8, scanned=(2, 2, 6, 6), tissue=(3, 3, 5, 5))
    path = write_tiff(tmp_path / "slide.tiff", recipe) if kind == "tiff" else write_as_mirax(tmp_path, recipe)
    pictures = open_pictures(path)
    pyramid = pyramid_of(pictures)
    assert (pyramid.width, pyramid.height) == (1_024, 1_024)

    for level in range(pyramid.level_count - 6, pyramid.level_count):
        columns, rows = pyramid.size(level)
        for column, row in [(0, 0), (pyramid.grid(level)[0] - 1, pyramid.grid(level)[1] - 1)]:
            corner = np.s_[: rows // 8, : columns // 8] if column == 0 else np.s_[-(rows // 8) :, -(columns // 8) :]
            assert (decoded(pictures.tile_jpeg(level, column, row))[corner] >= 250).all(), level
        middle = pyramid.grid(level)[0] // 2, pyramid.grid(level)[1] // 2
        assert (decoded(pictures.tile_jpeg(level, *middle)) < 230).any(), level
    corner = pictures.thumbnail(256)[:20, :20]
    assert len(np.unique(corner.reshape(-1, 3), axis=0)) == 2


def test_damage_costs_the_tiles_that_show_it_and_names_the_place(shared_slides: Path) -> None:
    pictures = open_pictures(shared_slides / "made_corrupt_zeros_tail.svs")
    last = pyramid_of(pictures).level_count - 1

    assert decoded(pictures.tile_jpeg(last, 0, 0)).shape == (256, 256, 3)
    with pytest.raises(UnreadableSlide, match=r"level-0 rectangle \(768, 1024\)"):
        pictures.tile_jpeg(last, 3, 4)
    for _ in range(2):
        with pytest.raises(UnreadableSlide, match="level-0 rectangle"):
            pictures.tile_jpeg(0, 0, 0)
    with pytest.raises(UnreadableSlide, match="level-0 rectangle"):
        pictures.thumbnail(512)
    assert decoded(pictures.tile_jpeg(last, 0, 0)).shape == (256, 256, 3)


def test_a_tile_beside_the_grid_is_refused(sample_slide: Path) -> None:
    with pytest.raises(ValueError, match="no such tile"):
        open_pictures(sample_slide).tile_jpeg(11, 8, 0)
