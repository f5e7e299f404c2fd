"""The hierarchical kind: the same as its levels one by one, from any kind of slide, killed wherever it may be."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hierarchical_toys import (
    CPU,
    DarkIsNucleus,
    DrawnRegions,
    hierarchical_manifest,
    hierarchical_toy,
    spec_of,
    stage_with_dark_cells,
    write_flat_slide,
)
from long_tests import all_or
from numpy.typing import NDArray
from parts_in_memory import PartsInMemory
from shapely.geometry import Polygon
from toy_kinds import documented_manifest

from encoders.caller import Caller
from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled, NoTissue, RegionTooSmall, UnusableFeatures
from encoders.golden_vector import check_golden, record_golden
from encoders.hierarchical import encode as encode_module
from encoders.hierarchical import region_parts
from encoders.hierarchical.cell_outlines import cell_polygons
from encoders.hierarchical.encode import HierarchicalEncoder, StartedRegion
from encoders.hierarchical.levels_file import Levels, read_levels, write_levels
from encoders.hierarchical.networks import Networks, empty_networks
from encoders.hierarchical.published_levels import PublishedSlide, read_published, write_published
from encoders.load_weights import load_weights
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.precomputed.check_features import check_shape
from encoders.precomputed.features_process import check_features_of_slide, read_given_features
from encoders.regions.encode_region import DrawnRegion, encode_region
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import KeptLevels, read_tile_places
from encoders.regions.tile_places import region_id
from encoders.slide_stages import hierarchical
from encoders.slide_stages.hierarchical import HierarchicalStage, ReadRegions, halve_if_choices_agree
from encoders.slide_stages.slide_stage import SlideInHand
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import SlideEmbedding, SlideFacts, SlideFile, Stage
from model_store.contracts.slide_stage import HIERARCHICAL_NETWORKS, Hierarchical
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.manifest import parse_manifest
from model_store.manifest_text import manifest_text

SLIDE_ID = "ab" * 32


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return hierarchical_toy(tmp_path_factory.mktemp("hierarchical"))


@pytest.fixture(scope="module")
def small(toy: InstalledModel) -> Iterator[HierarchicalStage]:
    """Regions of one picture, cells that are found."""
    spec = spec_of(toy)
    stage = stage_with_dark_cells(
        toy, spec.model_copy(update={"regions": spec.regions.model_copy(update={"region_px": 256})})
    )
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def encoders(toy: InstalledModel) -> Iterator[Encoders]:
    with load_encoders(toy, "cpu") as loaded:
        loaded.stage.encoder._cellvit = DarkIsNucleus(spec_of(toy).cellvit.embed_dim)
        yield loaded


def encoded(encoders: Encoders, slide: Path, folder: Path, caller: Caller | None = None) -> SlideEmbedding:
    return encode_slide(
        SlideFile(SLIDE_ID, slide),
        encoders,
        mpp_override=None,
        limits=ReaderLimits(),
        features_path=folder / "features.h5",
        caller=caller or Caller(),
    )


def read_drawn(stage: HierarchicalStage, reader: DrawnRegions, caller: Caller | None = None) -> ReadRegions:
    hand: Any = SlideInHand(reader, {}, None, caller or Caller())  # type: ignore[arg-type]
    return stage.read(hand)


def pixels_of(slide: Path, spec: Hierarchical) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    with ReaderProcess(slide, ReaderLimits()) as reader:
        coords = reader.plan(spec.regions, None).coords
        return [batch.pixels[0].copy() for batch in reader.tiles(1)], coords


def same(one: ReadRegions, other: ReadRegions) -> bool:
    mine, theirs = ({**vars(it.levels), **vars(it.levels.cells)} for it in (one, other))
    return all(np.array_equal(mine[name], theirs[name]) for name in mine if name != "cells")


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


def loaded_networks(model: InstalledModel) -> Networks:
    spec = spec_of(model)
    networks = empty_networks(spec)
    for name, network in networks.by_name().items():
        load_weights(network, model.file(spec.weights_files()[name]), name)
        network.eval().requires_grad_(False)
    return networks


def test_cells_lie_where_the_slide_shows_them(small: HierarchicalStage) -> None:
    reader = DrawnRegions(3, small.spec.regions)

    cells = read_drawn(small, reader).levels.cells

    # A disc of radius 20 about (90 + index, 120) in every region; regions lie side by side.
    assert cells.patch.tolist() == [0, 1, 2]
    np.testing.assert_allclose(cells.centroid, [[index * 256 + 90 + index, 120] for index in range(3)])
    assert cells.kind.tolist() == [1, 1, 1]
    outlines = np.split(cells.outline, cells.outline_start[1:-1])
    assert [tuple(outline.max(axis=0) - outline.min(axis=0)) for outline in outlines] == [(38, 38)] * 3


@pytest.mark.parametrize("killed_at", [0.5, 0.9])
def test_a_killed_worker_goes_on_behind_its_last_region(
    small: HierarchicalStage, killed_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_parts, "_EVERY_S", 0.0)
    parts, regions = PartsInMemory(), 10
    at_kill: dict[str, bytes] = {}

    def look(stage: Stage, done: int, _: int) -> None:
        if stage == "encode_regions" and done == regions * killed_at:
            at_kill.update(parts.stored)  # what a kill leaves: nothing is tidied up

    whole = read_drawn(small, DrawnRegions(regions, small.spec.regions), Caller(look, parts=parts))
    left, reader = PartsInMemory(), DrawnRegions(regions, small.spec.regions)
    left.stored = at_kill
    first: list[int] = []
    resumed = read_drawn(small, reader, Caller(lambda _, done, __: first.append(done), parts=left))

    assert at_kill
    assert first[2] == regions * killed_at, "progress goes on where it was"
    assert reader.drawn == regions - regions * killed_at, "nothing that was kept is read again"
    assert same(resumed, whole)
    assert np.array_equal(small.encode(resumed)["slide_tokens"], small.encode(whole)["slide_tokens"])


def test_killed_in_the_projector_no_region_is_encoded_again(
    small: HierarchicalStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = PartsInMemory()
    whole = read_drawn(small, DrawnRegions(6, small.spec.regions), Caller(parts=parts))

    def killed() -> None:
        raise EncodeCancelled("killed")

    with pytest.raises(EncodeCancelled):
        small.encode(whole, killed)
    reader = DrawnRegions(6, small.spec.regions)
    resumed = read_drawn(small, reader, Caller(parts=parts))

    assert reader.drawn == 0
    assert np.array_equal(small.encode(resumed)["slide_tokens"], small.encode(whole)["slide_tokens"])


@pytest.mark.parametrize("harm", ["cut", "changed", "of another plan", "of another model", "behind a gap"])
def test_a_part_that_does_not_fit_is_encoded_again(
    small: HierarchicalStage, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_parts, "_EVERY_S", 0.0)
    parts = PartsInMemory()
    whole = read_drawn(small, DrawnRegions(3, small.spec.regions), Caller(parts=parts))
    name = sorted(parts.stored)[0]
    content = parts.stored[name]
    stage = small
    if harm == "cut":
        parts.stored[name] = content[:-9]
    elif harm == "changed":
        parts.stored[name] = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    elif harm == "behind a gap":
        del parts.stored[name]
    reader = DrawnRegions(4 if harm == "of another plan" else 3, stage.spec.regions)
    plan = reader.plan(stage.spec.regions, None)
    spec = stage.spec
    if harm == "of another model":
        spec = spec.model_copy(update={"vit4k": spec.vit4k.model_copy(update={"embed_dim": 6})})

    kept = region_parts.load_regions(parts, plan, spec)

    assert kept == []
    if harm in ("cut", "changed", "behind a gap"):
        assert same(read_drawn(stage, reader, Caller(parts=parts)), whole)


def test_a_store_that_takes_nothing_stops_nobody(small: HierarchicalStage) -> None:
    parts = PartsInMemory()
    parts.full = True

    made = read_drawn(small, DrawnRegions(3, small.spec.regions), Caller(parts=parts))

    assert made.tile_count == 3
    assert not parts.stored
    assert parts.writes


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


SWITCHES: dict[str, Any] = {
    "variant": "intended",
    "anchor": "another",
    "dissimilar": 16,
    "keep": 3,
    "dtype": "bfloat16",
    "patch_px": 128,
}
SWITCHES_OF_REGIONS: dict[str, Any] = {
    "region_px": 1024,
    "tissue_unit_px": 64,
    "step_level": 1,
    "order": "raster",
    "edge": "white",
}


def test_every_switch_is_part_of_the_encoder_id(toy: InstalledModel) -> None:
    def with_stage(stage: Hierarchical) -> str:
        return encoder_id(replace(toy, manifest=toy.manifest.model_copy(update={"slide_stage": stage})))

    spec = spec_of(toy)
    ids = [encoder_id(toy), with_stage(spec.model_copy(update={"cellvit": changed(spec.cellvit, amp="float16")}))]
    ids += [with_stage(spec.model_copy(update={name: value})) for name, value in SWITCHES.items()]
    ids += [
        with_stage(spec.model_copy(update={"regions": changed(spec.regions, **{name: value})}))
        for name, value in SWITCHES_OF_REGIONS.items()
    ]
    ids += [encoder_id(replace(toy, digests={**toy.digests, file: "0" * 64})) for file in spec.weights_files().values()]
    ids.append(encoder_id(toy, mpp_override=0.5))

    assert len(set(ids)) == len(ids) == 2 + len(SWITCHES) + len(SWITCHES_OF_REGIONS) + len(HIERARCHICAL_NETWORKS) + 1
    networks, own = set(HIERARCHICAL_NETWORKS), set(Hierarchical.model_fields)
    assert own - networks - {"kind", "regions"} == set(SWITCHES), "no switch is forgotten here"
    assert set(type(spec.regions).model_fields) == set(SWITCHES_OF_REGIONS)


def changed(table: Any, **fields: Any) -> Any:
    return table.model_copy(update=fields)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variant": "intended"}, "not defined"),
        ({"keep": 9}, "dissimilar"),
        ({"patch_px": 128}, "256"),
        ({"anchor": "report"}, "first_region"),
    ],
)
def test_what_cannot_be_defended_is_refused_with_its_reason(changes: dict[str, Any], said: str) -> None:
    text = manifest_text(hierarchical_manifest())
    for name, value in changes.items():
        text = "\n".join(f"{name} = {value!r}" if line.startswith(f"{name} =") else line for line in text.split("\n"))

    with pytest.raises(ModelError, match=said):
        parse_manifest(text)


def test_a_manifest_has_no_inputs_for_it_and_tile_features_are_refused(toy: InstalledModel) -> None:
    assert toy.manifest.inputs == {}
    assert toy.manifest.cut == spec_of(toy).regions
    assert "[inputs" not in manifest_text(toy.manifest)
    with pytest.raises(ModelError, match="no tile encoder"):
        _ = toy.manifest.first_input
    with pytest.raises(UnusableFeatures, match="send the slide"):
        check_shape(5, 64, toy.manifest, has_coords=True)
    check_shape(8, 64, toy.manifest, has_coords=False)


def test_its_golden_vector_covers_every_network(toy: InstalledModel) -> None:
    found = check_golden(record_golden(toy, "cpu"), "cpu")

    assert found is not None
    assert found.slide_tokens == 0


def test_half_precision_is_used_where_the_same_pictures_are_chosen(
    toy: InstalledModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hierarchical, "_GATE_PICTURES", 4)
    spec = spec_of(toy).model_copy(update={"dtype": "bfloat16"})
    agreeing, other, untouched = loaded_networks(toy), loaded_networks(toy), loaded_networks(toy)
    monkeypatch.setattr(hierarchical, "_chosen", lambda *_: torch.zeros(1, 4))
    assert halve_if_choices_agree(agreeing, spec)
    choices = iter([torch.zeros(1, 4), torch.ones(1, 4)])
    monkeypatch.setattr(hierarchical, "_chosen", lambda *_: next(choices))
    assert not halve_if_choices_agree(other, spec)

    def dtypes(networks: Networks) -> dict[str, torch.dtype]:
        return {name: next(network.parameters()).dtype for name, network in networks.by_name().items()}

    halved = {"vit256", "vit4k", "conch", "cell_fusion"}
    assert {name for name, dtype in dtypes(agreeing).items() if dtype == torch.bfloat16} == halved
    assert set(dtypes(other).values()) == {torch.float32}
    published = untouched.conch.state_dict()
    assert all(torch.equal(weights, published[name]) for name, weights in other.conch.state_dict().items())
    assert "float32 is used" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "amp"),
    all_or([("bfloat16", "none")], [("bfloat16", "none"), ("float16", "float16"), ("bfloat16", "bfloat16")]),
)
def test_a_slide_in_half_precision_is_about_the_same(toy: InstalledModel, dtype: str, amp: str) -> None:
    spec = spec_of(toy)
    spec = spec.model_copy(update={"regions": spec.regions.model_copy(update={"region_px": 256})})
    halved = spec.model_copy(update={"dtype": dtype, "cellvit": spec.cellvit.model_copy(update={"amp": amp})})
    stages = [HierarchicalStage(it, toy.file, CPU) for it in (spec, halved)]
    if amp == "none":
        for stage in stages:
            stage.encoder._cellvit = DarkIsNucleus(spec.cellvit.embed_dim)  # type: ignore[assignment]
    reader = DrawnRegions(1, spec.regions)

    rows = [stage.encode(read_drawn(stage, reader))["slide_tokens"].astype(np.float32) for stage in stages]

    assert 0 < np.abs(rows[0] - rows[1]).max() < 0.2


def test_too_little_memory_halves_the_passes_and_changes_nothing(
    toy: InstalledModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = stage_with_dark_cells(toy)
    conch = stage.encoder._conch
    reader, asked = DrawnRegions(2, stage.spec.regions), []

    class Full(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            asked.append(len(pixels))
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            found: torch.Tensor = conch(pixels)
            return found

    expected = read_drawn(stage, reader)
    stage.encoder._conch = Full()  # type: ignore[assignment]
    made = read_drawn(stage, reader)

    assert (asked[0], max(asked[-2:])) == (4, 2)
    assert stage.encoder.passes[0] == 2
    np.testing.assert_allclose(made.levels.patch, expected.levels.patch, atol=1e-6)
    assert "does not do" in caplog.text


def test_its_file_of_levels_stands_in_for_the_slide(
    encoders: Encoders, toy: InstalledModel, tmp_path: Path, sample_slide: Path
) -> None:
    from_pixels = encoded(encoders, sample_slide, tmp_path)
    given = (tmp_path / "features.h5").rename(tmp_path / "given.h5")
    stages: list[str] = []

    from_levels = encoded(encoders, given, tmp_path, Caller(lambda stage, *_: stages.append(stage)))

    assert set(stages) == {"encode_slide"}
    assert (from_levels.mpp_source, from_levels.tile_count) == ("features", from_pixels.tile_count)
    for name, tensor in from_pixels.tensors.items():
        assert np.array_equal(from_levels.tensors[name], tensor), name
    kept, mine = read_levels(tmp_path / "features.h5"), read_levels(given)
    assert kept.cells is None
    assert np.array_equal(kept.patch_features, mine.patch_features)
    assert kept.level0_width == 2048


def test_rows_survive_the_way_through_the_public_codes_files(small: HierarchicalStage, tmp_path: Path) -> None:
    made = read_drawn(small, DrawnRegions(3, small.spec.regions))
    made.write(tmp_path / "own.h5", SLIDE_ID, "0" * 16)
    own = read_levels(tmp_path / "own.h5")
    assert own.level0_width is not None
    assert own.level0_height is not None

    write_published(own, tmp_path / "published", "biopsy")
    slide = PublishedSlide(own.level0_width, own.level0_height, SLIDE_ID, own.region_px)
    write_levels(tmp_path / "given.h5", read_published(tmp_path / "published", "biopsy", slide))
    levels = read_levels(tmp_path / "given.h5")

    kept = KeptLevels(levels.region_features, levels.patch_index, levels.patch_features, levels.cell_features)
    rows = small.encode_kept(kept, levels.region_coords)
    expected = small.encode(made)
    assert expected["slide_tokens"].std() > 0
    assert rows.keys() == expected.keys()
    assert all(np.array_equal(rows[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("of another model", "region_px 256; the served model needs 512"),
        ("contradicts itself", "contradicts itself"),
        ("of another slide", "another size"),
    ],
)
def test_levels_that_cannot_be_used_are_refused(
    small: HierarchicalStage, toy: InstalledModel, tmp_path: Path, harm: str, said: str
) -> None:
    path = tmp_path / "given.h5"
    read_drawn(small, DrawnRegions(2, small.spec.regions)).write(path, SLIDE_ID, "0" * 16)
    regions = spec_of(toy).regions if harm == "of another model" else small.spec.regions
    stage = small.spec.model_copy(update={"regions": regions, "keep": 1})
    if harm == "contradicts itself":
        with h5py.File(path, "r+") as file:
            file["patches/index"][0, 0] = 200
    slide = SlideFacts("aperio", 300, 300, 0.5, None) if harm == "of another slide" else None

    with pytest.raises(UnusableFeatures, match=said):
        check_features_of_slide(
            path,
            toy.manifest.model_copy(update={"slide_stage": stage}),
            ReaderLimits(),
            slide,
            lambda _: pytest.fail("regions are not planned for it"),
        )


@pytest.mark.parametrize("empty", ["regions/features", "patches/features"])
def test_levels_that_were_never_filled_are_refused(
    small: HierarchicalStage, toy: InstalledModel, tmp_path: Path, empty: str
) -> None:
    path = tmp_path / "given.h5"
    read_drawn(small, DrawnRegions(2, small.spec.regions)).write(path, SLIDE_ID, "0" * 16)
    with h5py.File(path, "r+") as file:
        file[empty][...] = 0

    stage = small.spec.model_copy(update={"keep": 1})
    with pytest.raises(UnusableFeatures, match="the file was not filled"):
        read_given_features(path, toy.manifest.model_copy(update={"slide_stage": stage}), ReaderLimits())


def test_levels_are_refused_by_a_model_of_tiles(small: HierarchicalStage, tmp_path: Path) -> None:
    path = tmp_path / "given.h5"
    read_drawn(small, DrawnRegions(1, small.spec.regions)).write(path, SLIDE_ID, "0" * 16)

    with pytest.raises(UnusableFeatures, match="reads tiles"):
        check_features_of_slide(path, documented_manifest(), ReaderLimits(), None, lambda _: pytest.fail("not planned"))
