"""Which tiles lie in a region, what the region is called, and what is read of a features file."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from drawn_levels import drawn_levels
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoders.errors import RegionsUnavailable, RegionTooSmall, StoredFileDamaged, UnusableRegion
from encoders.hierarchical.levels_file import write_levels
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import read_kept_levels, read_tile_features, read_tile_places
from encoders.regions.tile_places import LEAST_TILES, TilePlaces, covered_px2, region_id

SIDE = 100


def grid(columns: int = 10, rows: int = 10, mpp: float | None = 0.5) -> TilePlaces:
    """Tiles side by side, in raster order."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64) * SIDE
    return TilePlaces(coords, SIDE, mpp, columns * SIDE, rows * SIDE)


def by_winding(outline: Outline, places: TilePlaces) -> list[int]:
    """By the angle under which the outline is seen from each centre."""
    found = []
    for index, centre in enumerate(places.coords + places.side_px / 2):
        seen = outline.corners - centre
        angles = np.arctan2(seen[:, 1], seen[:, 0])
        turned = (np.roll(angles, -1) - angles + np.pi) % (2 * np.pi) - np.pi
        if abs(turned.sum()) > np.pi:
            found.append(index)
    return found


def test_a_tile_belongs_to_a_region_when_its_centre_lies_inside() -> None:
    places = grid(4, 4)

    assert places.inside(Outline.rectangle(149, 149, 2, 2)).tolist() == [5]
    assert places.inside(Outline.rectangle(100, 100, 49, 49)).tolist() == []
    assert places.inside(Outline.rectangle(-10, -10, 1e6, 1e6)).tolist() == list(range(16))


def test_regions_side_by_side_share_no_tile_and_leave_none_out() -> None:
    places = grid(4, 4)
    left, right = Outline.rectangle(0, 0, 150, 400), Outline.rectangle(150, 0, 250, 400)

    both = [*places.inside(left).tolist(), *places.inside(right).tolist()]

    assert sorted(both) == list(range(16))


@given(st.lists(st.tuples(st.integers(-3, 13), st.integers(-3, 13)), min_size=3, max_size=9))
def test_any_simple_polygon_has_the_tiles_that_see_it_all_around(corners: list[tuple[int, int]]) -> None:
    places = grid()
    try:
        outline = Outline.of([(x * 77 + 0.5, y * 77 + 0.25) for x, y in corners])
    except UnusableRegion:
        return
    doubled = len(np.unique(outline.corners, axis=0)) < len(outline.corners)

    if not doubled:  # one that goes through a corner twice has no inside that both agree on
        assert places.inside(outline).tolist() == by_winding(outline, places)


def test_the_order_of_tiles_in_the_file_does_not_matter() -> None:
    places = grid(6, 6)
    shuffled = np.random.default_rng(1).permutation(len(places.coords))
    mixed = TilePlaces(places.coords[shuffled], SIDE, 0.5, 600, 600)
    outline = Outline.of([(30, 30), (560, 80), (300, 590)])

    chosen, of_mixed = places.coords[places.inside(outline)], mixed.coords[mixed.inside(outline)]

    assert region_id("s", "e", chosen) == region_id("s", "e", of_mixed)
    assert region_id("s", "e", chosen) != region_id("s", "e", chosen[1:])
    assert region_id("s", "e", chosen) != region_id("t", "e", chosen)
    assert region_id("s", "e", chosen) != region_id("s", "f", chosen)


def test_a_region_of_too_few_tiles_says_how_much_more_is_needed() -> None:
    places = grid()
    with pytest.raises(RegionTooSmall, match=r"holds 5 of the 16 tiles .* by 11 more \(0\.03 mm²\)"):
        places.require_inside(Outline.rectangle(0, 0, 500, 100))
    with pytest.raises(RegionTooSmall, match=r"holds 0 of the 16 tiles .* by 16 more\."):
        grid(mpp=None).require_inside(Outline.rectangle(0, 0, 10, 10))
    with pytest.raises(RegionTooSmall, match=r"whole slide has 9 tiles"):
        grid(3, 3).require_inside(Outline.rectangle(0, 0, 300, 300))
    assert len(places.require_inside(Outline.rectangle(0, 0, 400, 400))) == LEAST_TILES


def test_a_region_beside_the_slide_is_refused() -> None:
    with pytest.raises(UnusableRegion, match="outside the slide, which is 1000 × 1000"):
        grid().require_inside(Outline.rectangle(2000, 0, 500, 500))


def features_file(path: Path, places: TilePlaces, features: NDArray[np.float32], **said: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, chunks=(7, features.shape[1]), fletcher32=True)
        file.create_dataset("coords", data=places.coords, fletcher32=True)
        file.attrs.update(said)
    return path


def test_only_what_a_region_needs_is_read(tmp_path: Path) -> None:
    places, features = grid(), np.arange(300, dtype=np.float32).reshape(100, 3)
    path = features_file(
        tmp_path / "a.h5",
        places,
        features,
        tile_px_level0=100.0,
        mpp=0.5,
        width=1000,
        height=1000,
        mpp_source="override",
    )
    chosen = np.array([0, 6, 7, 50, 99])

    read = read_tile_places(path)

    assert (read.side_px, read.mpp, read.width, read.height, read.mpp_source) == (100.0, 0.5, 1000, 1000, "override")
    np.testing.assert_array_equal(read.coords, places.coords)
    np.testing.assert_array_equal(read_tile_features(path, chosen), features[chosen])


def test_features_that_do_not_say_how_large_a_tile_is_have_no_regions(tmp_path: Path) -> None:
    path = features_file(tmp_path / "a.h5", grid(), np.zeros((100, 3), np.float32))

    with pytest.raises(RegionsUnavailable, match="patch_size_level0"):
        read_tile_places(path)


def test_damaged_features_are_told_from_good_ones(tmp_path: Path) -> None:
    features = np.random.default_rng(1).random((100, 3)).astype(np.float32)
    path = features_file(tmp_path / "a.h5", grid(), features, tile_px_level0=100.0)
    content = path.read_bytes()
    place = content.index(features[50:56].tobytes()[:24])
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])

    with pytest.raises(StoredFileDamaged):
        read_tile_features(path, np.arange(100))
    path.write_bytes(content[:100])
    with pytest.raises(StoredFileDamaged):
        read_tile_places(path)


def test_what_tiles_cover_is_counted_once_where_they_overlap() -> None:
    corners = np.array([[0, 0], [50, 0], [0, 0], [300, 40], [300, 90], [1000, 1000]], np.int64)

    assert covered_px2(corners, 100) == 150 * 100 + 100 * 150 + 100 * 100
    assert covered_px2(corners[:0], 100) == 0
    assert TilePlaces(corners, 100, None, None, None).area_mm2(np.arange(3), 0.5) == 150 * 100 * 0.25 / 1e6
    assert TilePlaces(corners, 100, None, None, None).area_mm2(np.arange(3)) is None
    whole = grid(30, 20)
    assert whole.area_mm2(np.arange(600)) == pytest.approx(600 * 2500 / 1e6)


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=12), st.sampled_from([4, 5.5, 7.25]))
def test_the_area_is_that_of_a_painted_picture(corners: list[tuple[int, int]], side: float) -> None:
    painted = np.zeros((140, 140), bool)
    for x, y in corners:
        painted[y * 4 : y * 4 + int(side * 4), x * 4 : x * 4 + int(side * 4)] = True

    area = covered_px2(np.array(corners, np.int64).reshape(-1, 2), side)

    assert area == pytest.approx(painted.sum() / 16)


def test_places_without_any_order_have_no_area() -> None:
    scattered = np.random.default_rng(1).permutation(40_000).reshape(-1, 2).astype(np.int64)

    assert covered_px2(scattered, 3.0) is None


def test_a_file_of_levels_that_is_too_large_or_contradicts_itself_is_not_read(tmp_path: Path) -> None:
    write_levels(tmp_path / "a.h5", drawn_levels(region_grid=(3, 2)))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["regions/coords"]
        file["regions/coords"] = h5py.ExternalLink("/etc/passwd", "/coords")
    with pytest.raises(StoredFileDamaged):
        read_tile_places(tmp_path / "a.h5")
    write_levels(tmp_path / "b.h5", drawn_levels(region_grid=(3, 2)))
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["patches/features"]
        file.create_dataset("patches/features", (6, 5, 2**29), np.float32, chunks=(1, 1, 1024))
    with pytest.raises(StoredFileDamaged):
        read_kept_levels(tmp_path / "b.h5", np.array([0]))


def test_of_a_model_of_levels_its_own_regions_are_chosen_in_its_order(tmp_path: Path) -> None:
    levels = drawn_levels(region_grid=(3, 2))
    write_levels(tmp_path / "a.h5", levels)
    places = read_tile_places(tmp_path / "a.h5")

    chosen = places.require_inside(Outline.rectangle(0, 0, 1500, 1500))
    kept = read_kept_levels(tmp_path / "a.h5", np.array([0, 4]))

    assert (places.side_px, places.width, places.height) == (
        levels.region_px,
        levels.level0_width,
        levels.level0_height,
    )
    np.testing.assert_array_equal(places.coords, levels.region_coords)
    assert chosen.tolist() == [0]  # one is enough
    assert (places.mpp, places.mpp_source) == (None, "features"), "the file says no µm/px"
    np.testing.assert_array_equal(kept.region, levels.region_features[[0, 4]])
    np.testing.assert_array_equal(kept.patch_index, levels.patch_index[[0, 4]])
    np.testing.assert_array_equal(kept.patch, levels.patch_features[[0, 4]])
    np.testing.assert_array_equal(kept.cell, levels.cell_features[[0, 4]])
