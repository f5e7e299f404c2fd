"""A small installed model without weights that mean anything: enough for everything that does not load them."""

import shutil
from pathlib import Path

import pytest
from toy_checkpoint import Toy, toy_manifest

from encoders.expected_shapes import expected_shapes
from model_store.convert.convert_model import convert_model
from model_store.files.sha256sums import write_sums
from model_store.installed import InstalledModel, open_model
from model_store.manifest import packaged_manifest_text

FILES = (
    "tile_encoder/model.safetensors",
    "slide_encoder/model.safetensors",
    "llm/config.json",
    "llm/model.safetensors",
    "llm/tokenizer_config.json",
    "llm/generation_config.json",
    "llm/chat_template.jinja",
)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder that holds a complete model `demo`."""
    folder = tmp_path / "models" / "demo"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "manifest.toml").write_text(packaged_manifest_text("demo"))
    write_sums(folder)
    return folder.parent


@pytest.fixture(scope="session")
def converted_toy(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    """A tiny model that was converted from a merged checkpoint; not to be changed."""
    toy = Toy(tmp_path_factory.mktemp("downloads"), toy_manifest())
    toy.write_encoders()
    toy.write_merged()
    models_dir = tmp_path_factory.mktemp("models")
    return convert_model(toy.manifest, toy.folder, models_dir, expected_shapes(toy.manifest), lambda line: None)


@pytest.fixture
def toy_copy(converted_toy: InstalledModel, tmp_path: Path) -> InstalledModel:
    """A copy of it, to be spoiled."""
    shutil.copytree(converted_toy.folder, tmp_path / "models" / "toy")
    return open_model(tmp_path / "models", "toy")
