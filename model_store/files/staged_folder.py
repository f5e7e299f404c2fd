"""An installed model appears whole or not at all: it is built beside its place and renamed into it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_store.errors import ModelError


@contextmanager
def staged_model(models_dir: Path, name: str) -> Iterator[Path]:
    """An empty folder that takes the place of `<models_dir>/<name>` when the block ends without an error.

    What a killed run left is removed first. Raises ModelError while another process installs the same model, and where
    nothing can be written.
    """
    # Hidden, so that `models list` does not take it for a model.
    beside = models_dir / f".{name}.installing"
    make_folder(beside)
    lock = os.open(beside, os.O_RDONLY)
    try:
        _lock(lock, name)
        _empty(beside)
        built = beside / "built"
        built.mkdir()
        yield built
        _publish(built, models_dir / name, beside / "replaced")
    finally:
        # Closing releases the lock, also when the process is killed.
        os.close(lock)
    shutil.rmtree(beside)


def make_folder(folder: Path) -> None:
    """Makes a folder among the installed models; raises ModelError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"No model can be installed in the models folder ({error.strerror}); make it writable, or install the "
            "model before the folder is mounted read-only."
        ) from error


def _lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ModelError(f"Model {name!r} is being installed by another process; wait for it.") from error


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry)


def _publish(built: Path, place: Path, replaced: Path) -> None:
    if place.exists():
        place.rename(replaced)
    built.rename(place)
