"""`models add`: a model that was converted on another machine, from a folder."""

import shutil
from pathlib import Path

from model_store.errors import ModelError
from model_store.files.sha256sums import SUMS_FILE, read_sums
from model_store.files.staged_folder import staged_model
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.manifest import MANIFEST_FILE, load_manifest


def add_model(folder: Path, models_dir: Path) -> InstalledModel:
    """Copies the listed files of an installed model's folder and hashes the copy before it takes its place.

    The manifest's name becomes the model's. Raises ModelError naming a file that is missing or not what is listed.
    """
    manifest = load_manifest(folder / MANIFEST_FILE)
    digests = read_sums(folder)
    with staged_model(models_dir, manifest.name) as staged:
        for path in (*digests, SUMS_FILE):
            _copy(folder / path, staged / path, path)
        verify_digests(InstalledModel(staged, manifest, digests))
    return open_model(models_dir, manifest.name)


def _copy(source: Path, target: Path, listed: str) -> None:
    if not source.is_file():
        raise ModelError(f"The folder lists {listed} and does not hold it; copy the whole model again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
