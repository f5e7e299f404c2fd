"""A stage's folder: whose settings it belongs to, whether the stage is done, and files that appear whole or not at all.

settings.json           the settings that made everything below
checkpoint-<step>/      the newest state to go on from; none once the stage is done
weights.safetensors     the trained parameters and the model's buffers, once the stage is done
done.json               written last
logs/                   TensorBoard
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from training.errors import SettingsChanged
from training.loop.settings import LoopSettings

WEIGHTS_FILE: Final = "weights.safetensors"
_SETTINGS_FILE: Final = "settings.json"
_DONE_FILE: Final = "done.json"
_CHECKPOINT: Final = "checkpoint-"
_PARTIAL: Final = ".partial-"


def require_same_settings(folder: Path, settings: LoopSettings) -> None:
    """Passes an empty folder, and one whose settings lead to the same weights.

    Raises:
        SettingsChanged: anything but the pace of logs and checkpoints differs.
    """
    path = folder / _SETTINGS_FILE
    if not path.is_file():
        return
    found, wanted = read_json(path), json.loads(json.dumps(settings.recipe))
    changed = sorted(name for name in wanted if found.get(name) != wanted[name])
    if changed:
        raise SettingsChanged(
            f"{folder} holds training with another {', '.join(changed)}: "
            "remove that folder to train anew, or go back to the settings in its settings.json."
        )


def write_settings(folder: Path, settings: LoopSettings) -> None:
    """Claims the folder and clears what a killed run left half-written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    write_json(folder / _SETTINGS_FILE, asdict(settings))


def is_done(folder: Path) -> bool:
    """Whether the stage has ended and its weights are in the folder."""
    return (folder / _DONE_FILE).is_file()


def write_done(folder: Path, record: Mapping[str, Any]) -> None:
    """Marks the stage as ended, then drops the checkpoints."""
    write_json(folder / _DONE_FILE, record)
    for checkpoint in folder.glob(f"{_CHECKPOINT}*"):
        shutil.rmtree(checkpoint)


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint of the latest step, if there is one."""
    found = [(int(path.name.removeprefix(_CHECKPOINT)), path) for path in folder.glob(f"{_CHECKPOINT}*")]
    return max(found)[1] if found else None


def partial_path(folder: Path, name: str) -> Path:
    """Where to write something that `publish` will rename; a later run clears it if that does not happen."""
    return folder / f"{_PARTIAL}{name}"


def publish_checkpoint(folder: Path, built: Path, step: int) -> None:
    """Renames a completely written checkpoint into place; only then do older ones go."""
    place = folder / f"{_CHECKPOINT}{step}"
    publish(built, place)
    for older in folder.glob(f"{_CHECKPOINT}*"):
        if older != place:
            shutil.rmtree(older)


def publish(built: Path, place: Path) -> None:
    """Renames `built` (a file or a folder of files) to `place`, its content on disk first: power may fail too."""
    for path in built.iterdir() if built.is_dir() else [built]:
        _synchronise(path)
    built.rename(place)
    _synchronise(place.parent)


def read_json(path: Path) -> Any:
    """The file's one JSON value."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces the file in one step."""
    partial = partial_path(path.parent, path.name)
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    publish(partial, path)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
