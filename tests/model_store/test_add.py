"""A model from another machine is hashed as it is copied, and appears whole or not at all."""

from pathlib import Path

import pytest

from model_store.add import add_model
from model_store.errors import ModelError
from model_store.installed import InstalledModel, open_model, verify_digests


def test_a_whole_model_is_added_under_its_own_name(converted_toy: InstalledModel, tmp_path: Path) -> None:
    added = add_model(converted_toy.folder, tmp_path / "models")

    verify_digests(added)
    assert added.folder == tmp_path / "models" / "toy"
    assert added.manifest == converted_toy.manifest


@pytest.mark.parametrize("file", ["llm/config.json", "tile_encoder/model.safetensors"])
def test_a_changed_or_missing_file_is_named_and_nothing_is_added(
    toy_copy: InstalledModel, tmp_path: Path, file: str
) -> None:
    (toy_copy.folder / file).write_bytes(b"other")
    with pytest.raises(ModelError, match=f"{file} is not what was installed"):
        add_model(toy_copy.folder, tmp_path / "elsewhere")

    (toy_copy.folder / file).unlink()
    with pytest.raises(ModelError, match=f"lists {file} and does not hold it"):
        add_model(toy_copy.folder, tmp_path / "elsewhere")

    with pytest.raises(ModelError, match="not installed"):
        open_model(tmp_path / "elsewhere", "toy")


def test_a_failed_addition_leaves_the_earlier_model(toy_copy: InstalledModel, tmp_path: Path) -> None:
    add_model(toy_copy.folder, tmp_path / "elsewhere")
    (toy_copy.folder / "llm/config.json").write_bytes(b"other")

    with pytest.raises(ModelError):
        add_model(toy_copy.folder, tmp_path / "elsewhere")

    verify_digests(open_model(tmp_path / "elsewhere", "toy"))
