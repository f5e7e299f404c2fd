"""A model that ships with Eyepiece is installed by copying it: whole, once, and again when it is not as packaged."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from encoders.expected_shapes import expected_shapes
from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, write_sums
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.packaged_models import PACKAGED, install_packaged, open_or_install, packaged_models
from model_store.verify import verify_shapes

INSTALL = """
import sys
from pathlib import Path
from model_store.packaged_models import install_packaged
install_packaged(Path(sys.argv[1]), "demo")
assert "torch" not in sys.modules
"""


@pytest.fixture
def installed(tmp_path: Path) -> InstalledModel:
    return install_packaged(tmp_path, "demo")


def outdate(folder: Path) -> None:
    """A whole model of an earlier version."""
    manifest = folder / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('title = "', 'title = "Old '))
    write_sums(folder)


def damage(folder: Path) -> None:
    weights = folder / "tile_encoder/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


def lose(folder: Path) -> None:
    (folder / "llm/config.json").unlink()


def add_unlisted(folder: Path) -> None:
    (folder / "llm/added_tokens.json").write_text("{}")


@pytest.mark.parametrize("name", packaged_models())
def test_every_packaged_model_is_whole_and_fits_its_manifest(name: str) -> None:
    model = open_model(PACKAGED, name)

    verify_digests(model)
    assert verify_shapes(model, expected_shapes(model.manifest)) > 50


def test_it_is_installed_as_packaged_and_nothing_is_left_beside_it(installed: InstalledModel, tmp_path: Path) -> None:
    verify_digests(installed)

    assert installed.digests == open_model(PACKAGED, "demo").digests
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_one_that_is_as_packaged_is_kept(installed: InstalledModel, tmp_path: Path) -> None:
    os.utime(installed.file(installed.manifest.first_input.tile_encoder.weights), (1, 1))

    kept = install_packaged(tmp_path, "demo")

    assert kept.file(kept.manifest.first_input.tile_encoder.weights).stat().st_mtime == 1


def test_a_golden_vector_that_was_recorded_here_is_kept(installed: InstalledModel, tmp_path: Path) -> None:
    (installed.folder / "golden.safetensors").write_bytes(b"recorded")
    write_sums(installed.folder)

    kept = install_packaged(tmp_path, "demo")

    assert kept.digests["golden.safetensors"] == file_digest(installed.folder / "golden.safetensors")


@pytest.mark.parametrize("change", [outdate, damage, lose, add_unlisted])
def test_one_that_is_not_as_packaged_is_replaced(
    installed: InstalledModel, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(installed.folder)

    replaced = install_packaged(tmp_path, "demo")

    verify_digests(replaced)
    assert replaced.digests == open_model(PACKAGED, "demo").digests


def test_processes_that_start_together_all_find_it_installed_and_none_needs_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INSTALL, tmp_path / "models"]
    together = [subprocess.Popen(command) for _ in range(3)]

    assert [process.wait() for process in together] == [0, 0, 0]
    verify_digests(open_model(tmp_path / "models", "demo"))


def test_a_packaged_model_is_opened_at_once_and_any_other_must_be_installed(tmp_path: Path) -> None:
    assert open_or_install(tmp_path / "models", "demo").folder == tmp_path / "models/demo"

    with pytest.raises(ModelError, match="'wsi-llava' is not installed"):
        open_or_install(tmp_path / "models", "wsi-llava")
    with pytest.raises(ModelError, match="'wsi-llava' does not ship with Eyepiece; these do: demo"):
        install_packaged(tmp_path / "models", "wsi-llava")


def test_a_models_folder_that_cannot_be_made_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in its place")

    with pytest.raises(ModelError, match="make it writable"):
        install_packaged(tmp_path / "data" / "models", "demo")
