"""Reads published checkpoints shard by shard: safetensors, or PyTorch pickles through `weights_only`.

Tensors are views of the mapped file as long as that is possible, so a shard costs memory only as it is read.
"""

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model_store.errors import ModelError

# Preferred first: safetensors hold nothing but tensors.
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_NUMPY_SCALAR: Final = cast(Callable[..., Any], np.float64(0).__reduce__()[0])
# Training scripts save their command line and their best metric, often a number of numpy's (under 1.x by another path),
# beside the weights; these hold values and run nothing.
_VALUES: Final[list[Callable[..., Any] | tuple[Callable[..., Any], str]]] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(it)) for it in ("float32", "float64", "int64")),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
]
_INDEX_FILES = tuple(f"{name}.index.json" for name in _SINGLE_FILES)


def shards_of(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder in the order of their names.

    Raises ModelError when there are none, or when the folder's index names one that is not there.
    """
    for index, single in zip(_INDEX_FILES, _SINGLE_FILES, strict=True):
        if (folder / index).is_file():
            return [existing_file(folder, name) for name in _indexed_files(folder / index)]
        if (folder / single).is_file():
            return [folder / single]
    raise ModelError(f"There are no weights in {folder.name}/: {' or '.join(_SINGLE_FILES)} is missing.")


def existing_file(folder: Path, name: str) -> Path:
    """The file of that name directly in the folder; raises ModelError when it is not there."""
    # The name may come from a downloaded index: it must not lead out of the folder.
    if name != Path(name).name or not (folder / name).is_file():
        raise ModelError(f"{folder.name}/{name} is missing; get the file.")
    return folder / name


def read_shard(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU; raises ModelError that names the file, or the entry that is no tensor."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return only_tensors(read_pickle(path), path)


def read_pickle(path: Path) -> Mapping[str, Any]:
    """A PyTorch file's mapping, unpickled with `weights_only`; raises ModelError that names the file."""
    content = _unpickled(path)
    if not isinstance(content, Mapping):
        raise ModelError(f"{path.name} does not hold tensors by name; it is not the file that is wanted.")
    return content


def read_tensor(path: Path) -> Tensor:
    """The one tensor of a PyTorch file, unpickled with `weights_only`; raises ModelError that names the file."""
    content = _unpickled(path)
    if not isinstance(content, Tensor):
        raise ModelError(f"{path.name} does not hold one tensor; it is not the file that is wanted.")
    return content


def only_tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The mapping as it is; raises ModelError that names an entry which is no tensor."""
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"The entry {name!r} of {path.name} is not a tensor; it is not the file that is wanted.")
    return dict(content)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path.parent.name}/{path.name} is missing; get the file.") from error
    except ValueError as error:
        raise ModelError(f"{path.parent.name}/{path.name} is not JSON; get the file again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path.parent.name}/{path.name} is not a JSON object; get the file again.")
    return content


def _unpickled(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_VALUES):
            # Files of PyTorch before 1.6 are no zip archives and cannot be mapped.
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path.name} is damaged, or holds more than tensors; get the file again.") from error
    return content


def _indexed_files(index: Path) -> list[str]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ModelError(f"{index.name} has no weight_map; get the file again.")
    return sorted(set(files.values()))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path.name} is damaged or not a safetensors file; get the file again.") from error
