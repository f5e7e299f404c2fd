"""Models that ship with Eyepiece, weights and all: `packaged/<name>/` in the layout of an installed model.

Serving reads the models folder alone, so a packaged model is copied there like any other; nothing is downloaded or
computed, and no torch is loaded.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model_store.add import add_model
from model_store.errors import ModelError
from model_store.files.sha256sums import read_sums
from model_store.files.staged_folder import make_folder
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.manifest import MANIFEST_FILE

PACKAGED: Final = Path(__file__).parent / "packaged"


def packaged_models() -> list[str]:
    """The names of the models that ship with Eyepiece, sorted."""
    return sorted(manifest.parent.name for manifest in PACKAGED.glob(f"*/{MANIFEST_FILE}"))


def install_packaged(models_dir: Path, name: str) -> InstalledModel:
    """Installs a packaged model; keeps an installation of it whose every file is as packaged.

    An outdated, incomplete or damaged one is replaced, at once: an interrupted run leaves nothing else that looks like
    a model. Waits for another process that does the same. Raises ModelError when `name` does not ship with Eyepiece.
    """
    if name not in packaged_models():
        raise ModelError(f"Model {name!r} does not ship with Eyepiece; these do: {', '.join(packaged_models())}.")
    with _one_at_a_time(models_dir):
        return _current(models_dir, name) or add_model(PACKAGED / name, models_dir)


def open_or_install(models_dir: Path, name: str) -> InstalledModel:
    """The installed model of that name, a packaged one installed first; raises ModelError as `open_model` does."""
    return install_packaged(models_dir, name) if name in packaged_models() else open_model(models_dir, name)


def _current(models_dir: Path, name: str) -> InstalledModel | None:
    """The installed model when it is whole; a file that was recorded there since, a golden vector, may stay."""
    try:
        model = open_model(models_dir, name)
        verify_digests(model)
    except ModelError:
        return None
    return model if read_sums(PACKAGED / name).items() <= model.digests.items() else None


@contextmanager
def _one_at_a_time(models_dir: Path) -> Iterator[None]:
    """API, worker and vLLM start together and find the same model missing."""
    make_folder(models_dir)
    lock = os.open(models_dir, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        # Closing releases the lock, also when the process is killed.
        os.close(lock)
