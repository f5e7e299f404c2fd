"""An installed model opens only when it is whole, and is verified file by file."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, write_sums
from model_store.installed import InstalledModel, open_model, verify_digests


def test_a_complete_model_opens_and_verifies(models_dir: Path) -> None:
    model = open_model(models_dir, "demo")

    verify_digests(model)
    assert model.file(model.manifest.first_input.tile_encoder.weights).is_file()
    assert model.file(model.manifest.slide_stage.weights).is_file()
    assert (model.llm_folder / "config.json").is_file()
    assert model.digests["llm/config.json"] == file_digest(model.llm_folder / "config.json")


@pytest.mark.parametrize("name", ["absent", "demo2"])
def test_a_model_that_is_not_installed_is_said_to_be_so(models_dir: Path, name: str) -> None:
    with pytest.raises(ModelError, match="is not installed"):
        open_model(models_dir, name)


@pytest.mark.parametrize("name", ["../models/demo", "/etc", "", ".hidden", "Demo", "demo\n"])
def test_a_name_that_could_leave_the_folder_is_refused(models_dir: Path, name: str) -> None:
    with pytest.raises(ModelError, match="name holds only"):
        open_model(models_dir, name)


@pytest.mark.parametrize("file", ["tile_encoder/model.safetensors", "llm/model.safetensors", "llm/config.json"])
def test_a_missing_file_is_named(models_dir: Path, file: str) -> None:
    (models_dir / "demo" / file).unlink()

    with pytest.raises(ModelError, match=f"lacks {file}"):
        open_model(models_dir, "demo")


def test_a_needed_file_that_was_never_listed_is_named(models_dir: Path) -> None:
    (models_dir / "demo/llm/chat_template.jinja").unlink()
    write_sums(models_dir / "demo")

    with pytest.raises(ModelError, match=r"lacks llm/chat_template\.jinja"):
        open_model(models_dir, "demo")


def test_a_model_under_a_wrong_name_is_refused(models_dir: Path) -> None:
    shutil.copytree(models_dir / "demo", models_dir / "other")

    with pytest.raises(ModelError, match="says it is 'demo'"):
        open_model(models_dir, "other")


def test_a_changed_byte_is_found_by_verify_alone(models_dir: Path) -> None:
    (models_dir / "demo/llm/model.safetensors").write_text("other")
    model = open_model(models_dir, "demo")

    with pytest.raises(ModelError, match=r"llm/model\.safetensors is not what was installed"):
        verify_digests(model)


def test_a_file_nobody_listed_is_found_by_verify(models_dir: Path) -> None:
    model = open_model(models_dir, "demo")
    (model.llm_folder / "added_tokens.json").write_text("{}")

    with pytest.raises(ModelError, match=r"does not list: llm/added_tokens\.json"):
        verify_digests(model)


def test_errors_never_show_where_models_are_kept(models_dir: Path) -> None:
    (models_dir / "demo/llm/config.json").unlink()

    with pytest.raises(ModelError) as caught:
        open_model(models_dir, "demo")
    assert str(models_dir) not in caught.value.detail


def test_the_language_models_digest_covers_every_file_of_its_folder(converted_toy: InstalledModel) -> None:
    changed = {
        path: dataclasses.replace(converted_toy, digests={**converted_toy.digests, path: "0" * 64}).llm_digest
        for path in converted_toy.digests
    }

    touched = {path for path, digest in changed.items() if digest != converted_toy.llm_digest}
    assert touched == {path for path in converted_toy.digests if path.startswith("llm/")}
    assert len(set(changed.values())) == len(touched) + 1
