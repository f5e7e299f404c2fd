"""The colours of `../shared/cases`, where they are; what else is right of them is in `tests/server`."""

from pathlib import Path

import numpy as np
import pytest

from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from model_store.contracts.tile_encoder import TilingSpec

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


@pytest.mark.parametrize("name", ["ycbcr_tiles_called_rgb.tif", "every_seventh_tile_of_another_encoder.svs"])
def test_tiles_of_other_colours_are_read_as_what_they_are(cases: Path, demo_tiling: TilingSpec, name: str) -> None:
    """Both show what the reference shows, compressed a little otherwise."""
    planned, pixels = [], []
    for one in ("reference.tif", name):
        with ReaderProcess(cases / one, LIMITS) as reader:
            planned.append(reader.plan(demo_tiling, None))
            pixels.append(np.concatenate([batch.pixels.astype(np.float32) for batch in reader.tiles(32)]))

    assert [it.code for it in planned[1].warnings] == ["colors_contradicted"]
    assert abs(len(planned[0].coords) - len(planned[1].coords)) <= 4
    means = [one.mean(axis=(0, 1, 2)) for one in pixels]
    assert np.abs(means[0] - means[1]).max() <= 3
