"""A file of levels, or the public code's files, in place of a slide's pixels."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hierarchical_toys import (
    SLIDE_ID,
    DrawnRegions,
    encoded,
    read_drawn,
    spec_of,
)
from toy_kinds import documented_manifest

from encoders.caller import Caller
from encoders.errors import UnusableFeatures
from encoders.hierarchical.levels import KeptLevels
from encoders.hierarchical.levels_file import read_levels, write_levels
from encoders.hierarchical.published_levels import PublishedSlide, read_published, write_published
from encoders.pipeline import Encoders
from encoders.precomputed.features_process import check_features_of_slide, read_given_features
from encoders.slide_stages.hierarchical import HierarchicalStage
from encoders.tiling.isolation.reader_process import ReaderLimits
from encoders.types import SlideFacts
from model_store.installed import InstalledModel


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
