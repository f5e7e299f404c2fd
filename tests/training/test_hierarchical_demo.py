"""The packaged demo of levels is what its recipe writes."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from encoders.expected_shapes import expected_shapes
from model_store.errors import ModelError
from model_store.installed import open_model
from model_store.manifest_text import manifest_text
from model_store.packaged_models import PACKAGED
from training import hierarchical_demo
from training.hierarchical_demo import write_hierarchical_demo


def test_its_numbers_are_those_of_the_seed() -> None:
    model = open_model(PACKAGED, "demo-hierarchical")
    rng = np.random.default_rng(hierarchical_demo._SEED)

    for file, shapes in expected_shapes(model.manifest).items():
        drawn = hierarchical_demo._encoder(file, shapes, model.manifest, rng)
        kept = load_file(model.file(file))
        assert kept.keys() == drawn.keys()
        assert all(np.array_equal(kept[name], values.astype(np.float16)) for name, values in drawn.items()), file


def test_it_says_that_it_is_untrained_and_is_described_as_its_recipe_has_it() -> None:
    manifest = open_model(PACKAGED, "demo-hierarchical").manifest

    assert "never trained" in manifest.notice
    assert "untrained" in manifest.title
    assert manifest_text(manifest) == manifest_text(hierarchical_demo.load_manifest(hierarchical_demo.MANIFEST))


def test_a_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give it that name"):
        write_hierarchical_demo(tmp_path / "other")
