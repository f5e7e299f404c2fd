"""A slide drawn in code, an untrained model, and small examples of what travels."""

from pathlib import Path

import numpy as np
import pytest
from untrained_model import untrained_manifest, untrained_model

from encoders.types import TileFeatures, TilePlan
from model_store.contracts.tile_encoder import TilingSpec
from model_store.installed import InstalledModel


@pytest.fixture(scope="session")
def tiling() -> TilingSpec:
    return untrained_manifest().first_input.tiling


@pytest.fixture(scope="session")
def sample_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2048 × 1536 px at 0.5 µm/px, two levels."""
    # Not above: the tests for a GPU run where nothing can write a slide (benchmarks/gpu_check/marked_tests.py).
    from synthetic.write_slide import write_sample_slide

    path = tmp_path_factory.mktemp("slides") / "sample.svs"
    write_sample_slide(path, seed=7, width_px=2048, height_px=1536)
    return path


@pytest.fixture
def plan() -> TilePlan:
    return TilePlan(
        width=2_000,
        height=1_200,
        mpp=0.25,
        mpp_source="property",
        objective_power=40.0,
        target_mpp=0.5,
        tile_px=256,
        tile_px_level0=512.0,
        level=0,
        read_px=512,
        coords=np.array([[0, 0], [1024, 0], [512, 512]], dtype=np.int64),
    )


@pytest.fixture
def features(plan: TilePlan) -> TileFeatures:
    values = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
    return TileFeatures(plan, values)


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return untrained_model(tmp_path_factory.mktemp("models"))
