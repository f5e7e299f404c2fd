"""Files of `../shared/cases`, where they are; tests that need no file draw the same kinds."""

from pathlib import Path

import numpy as np
import pytest

from encoders.errors import MissingMpp, UnreadableSlide
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from model_store.manifest import TilingSpec

LIMITS = ReaderLimits(deadline_s=60)


@pytest.fixture
def demo_tiling(tiling: TilingSpec) -> TilingSpec:
    return tiling.model_copy(update={"tile_px": 224})


@pytest.fixture
def cases(shared_slides: Path) -> Path:
    folder = shared_slides.parent / "cases"
    if not folder.is_dir():
        pytest.skip("the folder of cases from the field (../shared/cases) is not here")
    return folder


@pytest.mark.parametrize(
    ("name", "downsamples", "codes"),
    [
        ("reference.tif", [1, 4, 16], set()),
        ("padded_levels_512.tif", [1, 2, 4, 8, 16], set()),
        # Its objective of 20× does not go with 0.25 µm/px.
        ("padded_levels_dicom_fine/l0.dcm", [1, 2, 4, 8], {"mpp_contradicted"}),
        ("tiled_macro_as_level.svs", [1, 4], {"level_not_believed"}),
        ("low_levels_blank.tif", [1], {"level_not_believed"}),
    ],
)
def test_scale_and_levels_are_right(
    cases: Path, demo_tiling: TilingSpec, name: str, downsamples: list[float], codes: set[str]
) -> None:
    path = cases / name
    with ReaderProcess(path, LIMITS, folder=path.parent if path.suffix == ".dcm" else None) as reader:
        assert [level.downsample for level in reader.levels()] == downsamples
        plan = reader.plan(demo_tiling, None)

    assert 94 <= len(plan.coords) <= 102
    assert {it.code for it in plan.warnings} == codes


def test_a_resolution_that_no_scanner_has_is_missing(cases: Path, demo_tiling: TilingSpec) -> None:
    with (
        ReaderProcess(cases / "ten_times_too_fine.tif", LIMITS) as reader,
        pytest.raises(MissingMpp, match=r"states 0\.05 µm/px"),
    ):
        reader.plan(demo_tiling, None)


@pytest.mark.parametrize("name", ["unscanned_around_little_tissue.tif", "unscanned_mirax.mrxs"])
def test_what_was_not_scanned_is_neither_glass_nor_tissue(cases: Path, demo_tiling: TilingSpec, name: str) -> None:
    with ReaderProcess(cases / name, LIMITS, folder=cases if name.endswith(".mrxs") else None) as reader:
        plan = reader.plan(demo_tiling, None)

    assert 6 <= len(plan.coords) <= 10


def test_tissue_without_pixels_is_refused(cases: Path, demo_tiling: TilingSpec) -> None:
    with (
        ReaderProcess(cases / "lower_half_of_level0_missing.tif", LIMITS) as reader,
        pytest.raises(UnreadableSlide, match=r"\(224, 1344\) – \(2464, 2912\), where its overview shows tissue"),
    ):
        reader.plan(demo_tiling, None)


@pytest.mark.parametrize("name", ["ycbcr_tiles_called_rgb.tif", "every_seventh_tile_of_another_encoder.svs"])
def test_tiles_of_other_colours_are_read_as_what_they_are(cases: Path, demo_tiling: TilingSpec, name: str) -> None:
    """Both show what the reference shows, compressed a little otherwise."""
    planned, pixels = [], []
    for one in ("reference.tif", name):
        with ReaderProcess(cases / one, LIMITS) as reader:
            planned.append(reader.plan(demo_tiling, None))
            pixels.append(np.concatenate([batch.pixels.astype(np.float32) for batch in reader.tiles(32)]))

    # Levels are compared as OpenSlide shows them, in false colours: those that then differ are not used.
    codes = {it.code for it in planned[1].warnings}
    assert "colors_contradicted" in codes
    assert codes <= {"colors_contradicted", "level_not_believed"}
    assert abs(len(planned[0].coords) - len(planned[1].coords)) <= 4
    means = [one.mean(axis=(0, 1, 2)) for one in pixels]
    assert np.abs(means[0] - means[1]).max() <= 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [("ycbcr_called_rgb_dicom/l0.dcm", "colour space"), ("rgb_in_three_pages.ome.tif", "3 grey pages")],
)
def test_what_cannot_be_read_in_its_colours_is_refused(cases: Path, name: str, reason: str) -> None:
    path = cases / name
    folder = path.parent if path.suffix == ".dcm" else None
    with pytest.raises(UnreadableSlide, match=reason), ReaderProcess(path, LIMITS, folder=folder):
        pass


@pytest.mark.parametrize("name", ["dark_dab_beside_pale.tif", "background_blacked_31px.tif"])
def test_tissue_is_found_beside_what_is_dark(cases: Path, demo_tiling: TilingSpec, name: str) -> None:
    with ReaderProcess(cases / name, LIMITS) as reader:
        assert 94 <= len(reader.plan(demo_tiling, None).coords) <= 102
