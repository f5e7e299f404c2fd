"""The hierarchical kind: the same as its levels one by one, from any kind of slide."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hierarchical_toys import (
    SLIDE_ID,
    DarkIsNucleus,
    DrawnRegions,
    encoded,
    loaded_networks,
    pixels_of,
    read_drawn,
    spec_of,
    write_flat_slide,
)
from long_tests import all_or
from numpy.typing import NDArray
from shapely.geometry import Polygon

from encoders.caller import Caller
from encoders.encoder_id import encoder_id
from encoders.errors import NoTissue, RegionTooSmall
from encoders.hierarchical import encode as encode_module
from encoders.hierarchical.cell_outlines import cell_polygons
from encoders.hierarchical.encode import HierarchicalEncoder, StartedRegion
from encoders.hierarchical.levels import Levels
from encoders.hierarchical.levels_file import read_levels
from encoders.pipeline import Encoders
from encoders.regions.encode_region import DrawnRegion, encode_region
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import read_tile_places
from encoders.regions.tile_places import region_id
from encoders.slide_stages.hierarchical import HierarchicalStage
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import SlideEmbedding
from model_store.installed import InstalledModel


def test_a_slide_is_what_its_levels_make_of_its_regions(
    encoders: Encoders, toy: InstalledModel, tmp_path: Path, sample_slide: Path
) -> None:
    stages: list[str] = []

    embedding = encoded(encoders, sample_slide, tmp_path, Caller(lambda stage, *_: stages.append(stage)))

    spec, networks = spec_of(toy), loaded_networks(toy)
    regions, coords = pixels_of(sample_slide, spec)
    by_name = {**networks.by_name(), "cellvit": DarkIsNucleus(spec.cellvit.embed_dim)}
    plain = HierarchicalEncoder(*by_name.values(), dissimilar=spec.dissimilar, keep=spec.keep)  # type: ignore[arg-type]
    expected = plain.encode(regions)
    levels = read_levels(tmp_path / "features.h5")
    tensors = embedding.tensors
    assert list(dict.fromkeys(stages)) == ["find_regions", "encode_regions", "encode_slide"]
    assert embedding.tile_count == len(regions) > 3
    assert tensors["slide_tokens"].shape == (8, 64)
    np.testing.assert_allclose(tensors["slide_tokens"].astype(np.float32), expected.rows.numpy(), rtol=1e-3, atol=1e-3)
    assert expected.rows.std() > 0.05, "the rows are not trivially equal"
    assert np.array_equal(tensors["region_xy"], coords.astype(np.int32))
    assert np.array_equal(tensors["patch_index"], expected.patch_index.numpy())
    assert (levels.slide_id, levels.encoder_id) == (SLIDE_ID, encoder_id(toy))
    np.testing.assert_allclose(levels.region_features, expected.region.numpy(), atol=1e-6)
    np.testing.assert_allclose(levels.cell_features, expected.cell.numpy(), atol=1e-6)
    assert levels.cells is not None
    assert len(levels.cells.patch)
    assert (levels.level0_width, levels.level0_height) == (2048, 1536)
    assert_outlines_lie_on_ink(levels, regions)


def assert_outlines_lie_on_ink(levels: Levels, regions: list[NDArray[np.uint8]]) -> None:
    """Each corner of each outline, as the file has it in level-0 pixels, is a pixel that was seen as a nucleus."""
    assert levels.cells is not None
    region = np.repeat(levels.cells.patch // levels.patch_index.shape[1], np.diff(levels.cells.outline_start))
    x, y = (levels.cells.outline - levels.region_coords[region]).T
    green = np.stack(regions)[region, y, x, 1]
    assert len(green) > 10
    assert (green < 120).all()
    assert (np.stack(regions)[..., 1] < 120).mean() < 0.1, "few pixels are dark: it is not by chance"
    polygons = cell_polygons(levels.cells.outline, levels.cells.outline_start)
    assert all(Polygon(polygon.ring).is_valid for polygon in polygons)


def test_a_region_of_a_slide_is_made_of_what_is_stored_of_its_levels(
    encoders: Encoders, toy: InstalledModel, tmp_path: Path, sample_slide: Path
) -> None:
    whole = encoded(encoders, sample_slide, tmp_path)
    features, identity = tmp_path / "features.h5", encoder_id(toy)
    places, levels = read_tile_places(features), read_levels(features)

    def made(outline: Outline) -> SlideEmbedding:
        name = region_id(SLIDE_ID, identity, places.coords[places.inside(outline)])
        return encode_region(DrawnRegion(name, SLIDE_ID, identity, outline), encoders, features, Caller())

    everything = made(Outline.rectangle(0, 0, 2048, 1536))
    lower = made(Outline.rectangle(0, 768, 2048, 768))

    chosen = np.flatnonzero(levels.region_coords[:, 1] + levels.region_px / 2 > 768)
    assert 0 < len(chosen) < len(levels.region_coords)
    assert lower.tile_count == len(chosen)
    for name, values in whole.tensors.items():
        np.testing.assert_array_equal(everything.tensors[name], values)
    kept = (levels.region_features, levels.patch_features, levels.cell_features)
    expected = encoders.stage.encoder.project(*(torch.from_numpy(it[chosen]) for it in kept)).numpy()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(lower.tensors["slide_tokens"], expected.astype(np.float16))
    assert not np.array_equal(lower.tensors["slide_tokens"], whole.tensors["slide_tokens"])
    assert np.array_equal(lower.tensors["region_xy"], levels.region_coords[chosen])
    with pytest.raises(RegionTooSmall, match="holds 0 of the 1 "):
        made(Outline.rectangle(0, 0, 5, 5))


def test_cells_lie_where_the_slide_shows_them(small: HierarchicalStage) -> None:
    reader = DrawnRegions(3, small.spec.regions)

    cells = read_drawn(small, reader).levels.cells

    # A disc of radius 20 about (90 + index, 120) in every region; regions lie side by side.
    assert cells.patch.tolist() == [0, 1, 2]
    np.testing.assert_allclose(cells.centroid, [[index * 256 + 90 + index, 120] for index in range(3)])
    assert cells.kind.tolist() == [1, 1, 1]
    outlines = np.split(cells.outline, cells.outline_start[1:-1])
    assert [tuple(outline.max(axis=0) - outline.min(axis=0)) for outline in outlines] == [(38, 38)] * 3


def test_a_slide_without_cells_has_rows(small: HierarchicalStage) -> None:
    made = read_drawn(small, DrawnRegions(2, small.spec.regions, cells=False))

    assert not made.levels.cell.any()
    assert len(made.levels.cells.patch) == 0
    assert np.isfinite(small.encode(made)["slide_tokens"]).all()


def test_a_single_region_is_a_slide(small: HierarchicalStage, tmp_path: Path) -> None:
    made = read_drawn(small, DrawnRegions(1, small.spec.regions))
    made.write(tmp_path / "features.h5", SLIDE_ID, "0" * 16)

    assert np.array_equal(made.levels.region[0], read_levels(tmp_path / "features.h5").slide_features)
    assert [path.name for path in tmp_path.iterdir()] == ["features.h5"]


# As many as the largest slide of the lab's has; the suite is content with fewer.
@pytest.mark.parametrize("regions", all_or([60], [563]))
def test_the_largest_published_slide_is_read_in_flat_memory(
    small: HierarchicalStage, regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[StartedRegion] = weakref.WeakSet()
    most = [0]

    class Region(StartedRegion):
        def __post_init__(self) -> None:
            alive.add(self)
            gc.collect(0)
            most[0] = max(most[0], len(alive))

        __hash__ = object.__hash__

    monkeypatch.setattr(encode_module, "StartedRegion", Region)

    made = read_drawn(small, DrawnRegions(regions, small.spec.regions))

    assert made.tile_count == len(made.levels.region) == regions
    assert len(made.levels.cells.patch) == regions
    # Two behind the device and the one in it; one more until the generator lets go of it.
    assert most[0] <= 4
    assert made.levels.cells.outline.nbytes < 2**20
    assert small.encode(made)["slide_tokens"].shape == (8, 64)


def test_a_slide_of_one_level_is_stepped_by_it_and_it_is_said(encoders: Encoders, tmp_path: Path) -> None:
    slide, pixels = tmp_path / "one.tiff", np.full((1300, 1100, 3), 244, np.uint8)
    pixels[100:1200, 40:1060] = (150, 60, 140)
    write_flat_slide(slide, pixels)
    grid = spec_of(encoders.model).regions.model_copy(update={"step_level": 1})

    with ReaderProcess(slide, ReaderLimits()) as reader:
        said = [warning.code for warning in reader.plan(grid, 0.5).warnings]
        by_itself = reader.plan(spec_of(encoders.model).regions, 0.5)
        stepped = reader.plan(grid, 0.5)

    assert "step_level_missing" in said
    assert np.array_equal(stepped.coords, by_itself.coords)
    assert len(stepped.coords)


def test_a_slide_without_tissue_is_refused(encoders: Encoders, tmp_path: Path) -> None:
    slide = tmp_path / "glass.tiff"
    write_flat_slide(slide, np.full((1024, 1024, 3), 244, np.uint8))

    with ReaderProcess(slide, ReaderLimits()) as reader, pytest.raises(NoTissue, match="region of 512"):
        reader.plan(spec_of(encoders.model).regions, 0.5)


def test_a_region_at_the_edge_is_skipped_or_white_beyond_it(encoders: Encoders, tmp_path: Path) -> None:
    pixels = np.full((1100, 1100, 3), 244, np.uint8)
    pixels[300:, 300:] = (150, 60, 140)
    slide, grid = tmp_path / "edge.tiff", spec_of(encoders.model).regions
    write_flat_slide(slide, pixels)

    with ReaderProcess(slide, ReaderLimits()) as reader:
        inside = reader.plan(grid, 0.5).coords
        all_of_them = reader.plan(grid.model_copy(update={"edge": "white"}), 0.5).coords
        last = [batch.pixels[0].copy() for batch in reader.tiles(1)][-1]

    assert (inside + 512 <= 1100).all()
    assert len(all_of_them) > len(inside)
    beyond = 1100 - all_of_them[-1]
    assert (last[beyond[1] :] == 255).all()
    assert (last[:, beyond[0] :] == 255).all()
    assert (last[: beyond[1], : beyond[0]] != 255).all()
