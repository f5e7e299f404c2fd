"""The published CellViT-256 checkpoint → one safetensors file, and what its configuration says beside the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from model_store.contracts.fields import Rgb
from model_store.convert.convert_weights import Shard, Target, plan_conversion, write_planned
from model_store.convert.tensor_names import CELLVIT
from model_store.errors import ModelError
from model_store.files.checkpoint_files import only_tensors, read_pickle
from model_store.files.write_safetensors import Shape

_ARCHITECTURE: Final = "CellViT256"
# Published without a normalisation of its own, a checkpoint has this one.
_HALF: Final = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class CellvitSettings:
    """What a checkpoint says of itself: classes with background, and the pixels' mean and deviation of 0 … 1."""

    cell_kinds: int
    tissue_kinds: int
    mean: Rgb
    std: Rgb


def read_cellvit_settings(file: Path) -> CellvitSettings:
    """Raises ModelError for another architecture, and for settings that are missing or impossible."""
    content = read_pickle(file)
    architecture = content.get("arch")
    if architecture != _ARCHITECTURE:
        raise ModelError(
            f"{file.name} holds {architecture!r}, not a {_ARCHITECTURE}; get the checkpoint of CellViT-256."
        )
    given = content.get("config")
    if not isinstance(given, Mapping):
        raise ModelError(f"{file.name} says nothing of its classes and normalisation; it is not the published file.")
    config = _flattened(given)
    if config.get("model.regression_loss"):
        raise ModelError(f"{file.name} was trained with two more maps (regression_loss), which nothing here reads.")
    return CellvitSettings(
        cell_kinds=_count(config, "data.num_nuclei_classes", file),
        tissue_kinds=_count(config, "data.num_tissue_classes", file),
        mean=_colours(config, "transformations.normalize.mean", file),
        std=_colours(config, "transformations.normalize.std", file),
    )


def convert_cellvit(file: Path, expected: Mapping[str, Shape], path: Path) -> Sequence[str]:
    """Writes the network to `path` in fp32; returns the names that it left out: the counters of training steps.

    `expected` is every tensor of the network with these settings, with or without the counters. Raises ModelError that
    names the tensor at fault.
    """
    served = {name: shape for name, shape in expected.items() if CELLVIT.served_name(name) is not None}
    target = Target("cell network", CELLVIT, served, "float32")
    plan = plan_conversion([Shard(file.name, partial(_weights, file))], target)
    write_planned(path, plan.shards, target)
    return plan.dropped


def _weights(file: Path) -> dict[str, Tensor]:
    entry = read_pickle(file).get("model_state_dict")
    if not isinstance(entry, Mapping):
        raise ModelError(f"{file.name} has no entry 'model_state_dict' with tensors; it is not the published file.")
    return only_tensors(entry, file)


def _flattened(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Published flat, with dots in the names; nested tables are the same."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _count(config: Mapping[str, Any], name: str, file: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"The setting {name} in {file.name} is {value!r}, not a number of classes.")
    return value


def _colours(config: Mapping[str, Any], name: str, file: Path) -> Rgb:
    value = config.get(name, _HALF)
    try:
        red, green, blue = (float(part) for part in value)
    except (TypeError, ValueError):
        raise ModelError(f"The setting {name} in {file.name} is {value!r}, not three numbers.") from None
    # A deviation of 0 would be divided by.
    if not all(0 <= part <= 1 for part in (red, green, blue)) or (name.endswith("std") and 0 in (red, green, blue)):
        raise ModelError(f"The setting {name} in {file.name} is {value!r}, but colours are numbers of 0 to 1.")
    return red, green, blue
