"""The output that made a feature file is found among those that could have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from untrained_model import untrained_model

from encoders.compare_outputs import compare_outputs, read_published_rows
from encoders.slide_encoder.encode import SlideEncoder
from encoders.slide_encoder.outputs import POOLED_OUTPUTS
from encoders.types import TileFeatures, TilePlan
from model_store.contracts.slide_stage import LongnetPool
from model_store.errors import ModelError
from model_store.installed import InstalledModel


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return untrained_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def features(demo: InstalledModel) -> TileFeatures:
    x, y = np.meshgrid(np.arange(9), np.arange(8))
    coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64) * 256
    plan = TilePlan(2304, 2048, 0.5, "property", None, 0.5, 256, 256, 0, 256, coords)
    values = np.random.default_rng(0).standard_normal((72, demo.manifest.slide_stage.in_chans))
    return TileFeatures(plan, values.astype(np.float32))


@pytest.mark.parametrize("output", POOLED_OUTPUTS)
def test_each_output_recognises_itself_in_a_padded_file(
    demo: InstalledModel, features: TileFeatures, tmp_path: Path, output: str
) -> None:
    spec = LongnetPool.model_validate({**demo.manifest.slide_stage.model_dump(), "output": output})
    rows = SlideEncoder(spec, demo.file(demo.manifest.slide_stage.weights), torch.device("cpu")).encode(features)
    padded = torch.nn.functional.pad(torch.from_numpy(rows), (0, 32))[None]
    torch.save(padded, tmp_path / "slide.pt")

    published = read_published_rows(tmp_path / "slide.pt", demo.manifest.slide_stage)
    nearest, second = compare_outputs(demo, features, published, "cpu")[:2]

    assert (nearest.output, nearest.difference) == (output, 0)
    assert nearest.cosine == pytest.approx(1)
    assert second.difference > 1e-3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (torch.zeros(31, 96), "expected"),
        (torch.zeros(32, 95), "expected"),
        (torch.zeros(2, 32, 96), "expected"),
        (torch.ones(32, 128), "not zero there"),
        ({"a": torch.zeros(1)}, "does not hold one tensor"),
    ],
)
def test_what_is_no_feature_file_of_this_model_is_refused(
    demo: InstalledModel, tmp_path: Path, content: object, sentence: str
) -> None:
    torch.save(content, tmp_path / "slide.pt")

    with pytest.raises(ModelError, match=sentence):
        read_published_rows(tmp_path / "slide.pt", demo.manifest.slide_stage)
