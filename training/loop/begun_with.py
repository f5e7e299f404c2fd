"""A stage that goes on from weights that somebody chose belongs to those: its folder says which they were.

begun.json      SHA-256 of the model as it was before the first step
"""

import hashlib
from pathlib import Path
from typing import Final

import torch
from torch import nn

from training.errors import SettingsChanged
from training.loop.stage_folder import read_json, write_json

_FILE: Final = "begun.json"


def require_same_start(folder: Path, model: nn.Module) -> None:
    """Claims a folder that is new for the weights that `model` has now.

    Raises:
        SettingsChanged: the stage in it was begun with others.
    """
    digest, path = _digest(model), folder / _FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"sha256": digest})
    elif read_json(path).get("sha256") != digest:
        raise SettingsChanged(
            f"{folder} holds a stage that went on from another model: remove that folder to train anew, name another "
            "--work, or begin with the model that it went on from."
        )


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        # Through integers: numpy knows no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
