"""A small installed model without weights that mean anything: enough for everything that does not load them."""

from pathlib import Path

import pytest

from model_store.manifest import packaged_manifest_text
from model_store.sha256sums import write_sums

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
