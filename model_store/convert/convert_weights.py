"""Published weights → our safetensors, shard by shard; names and shapes are all checked before a byte is written.

Each shard is read twice, first for names and shapes alone. Memory stays at one shard and a few tensors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model_store.convert.tensor_names import NameMap
from model_store.errors import ModelError
from model_store.files.write_safetensors import TORCH_DTYPES, Shape, TensorEntry, write_safetensors
from model_store.manifest import Dtype

_NAMES_SHOWN: Final = 3


@dataclass(frozen=True)
class Shard:
    """One published weight file; `read` gives its tensors by published name."""

    file: str
    read: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class PlannedShard:
    """What is taken from a shard, in its order: published names by served name, and the entries to write."""

    shard: Shard
    published_names: Mapping[str, str]
    entries: Sequence[TensorEntry]


@dataclass(frozen=True)
class Plan:
    """All that is written; `dropped` are published names that have no place in the served model."""

    shards: Sequence[PlannedShard]
    dropped: Sequence[str]


@dataclass(frozen=True)
class Target:
    """What the weights must become: `part` is its name in errors."""

    part: str
    names: NameMap
    expected: Mapping[str, Shape]
    dtype: Dtype


def plan_conversion(shards: Sequence[Shard], target: Target, overlay: Shard | None = None) -> Plan:
    """Maps every tensor; those of `overlay` take the place of equally named ones in the shards.

    Raises ModelError that names the tensors that are missing, left over, there twice or of a wrong shape.
    """
    plans = [_plan_shard(shard, target) for shard in ([overlay] if overlay else [])]
    replaced = set(plans[0][0].published_names) if overlay else set()
    plans = [*(_plan_shard(shard, target, replaced) for shard in shards), *plans]
    planned = [shard for shard, _ in plans if shard.entries]
    _require_each_once(planned, target)
    return Plan(planned, [name for _, dropped in plans for name in dropped])


def write_planned(path: Path, planned: Sequence[PlannedShard], target: Target, merge: "Merge | None" = None) -> int:
    """One safetensors file with the tensors of these shards; returns the bytes of its data.

    `merge` may change a tensor before it is cast, e.g. fold an adapter in. Raises ModelError naming a tensor that is
    not finite, or no longer finite in the target's dtype.
    """
    entries = [entry for shard in planned for entry in shard.entries]
    return write_safetensors(path, target.dtype, entries, _finished_tensors(planned, target, merge))


Merge = Callable[[str, Tensor], Tensor]


def _plan_shard(shard: Shard, target: Target, replaced: Iterable[str] = frozenset()) -> tuple[PlannedShard, list[str]]:
    published_names: dict[str, str] = {}
    entries, dropped = [], []
    for published, tensor in shard.read().items():
        served = target.names.served_name(published)
        if served is None:
            dropped.append(published)
        elif served not in replaced:
            _require_fit(published, served, tensor, shard, target)
            published_names[served] = published
            entries.append(TensorEntry(served, tuple(tensor.shape)))
    if len(entries) > len(published_names):
        raise ModelError(f"The {target.part}'s {shard.file} holds a tensor under two names; it cannot be converted.")
    return PlannedShard(shard, published_names, entries), dropped


def _require_fit(published: str, served: str, tensor: Tensor, shard: Shard, target: Target) -> None:
    where = f"The tensor {published!r} in {shard.file}"
    shape = target.expected.get(served)
    if shape is None:
        raise ModelError(f"{where} has no place in the {target.part}; it is another model than the manifest says.")
    if tuple(tensor.shape) != shape:
        raise ModelError(f"{where} has the shape {list(tensor.shape)}, the {target.part} needs {list(shape)}.")
    if not tensor.is_floating_point():
        raise ModelError(f"{where} is {tensor.dtype}, not floating point; quantised weights cannot be converted.")


def _require_each_once(planned: Sequence[PlannedShard], target: Target) -> None:
    seen: dict[str, str] = {}
    for shard in planned:
        for name in shard.published_names:
            if name in seen:
                raise ModelError(f"The tensor {name!r} is in {seen[name]} and in {shard.shard.file}; remove one file.")
            seen[name] = shard.shard.file
    missing = [name for name in target.expected if name not in seen]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        raise ModelError(f"The {target.part} lacks the tensors {shown}{more}; a file is missing or another model's.")


def _finished_tensors(planned: Sequence[PlannedShard], target: Target, merge: Merge | None) -> Iterator[Tensor]:
    for shard in planned:
        tensors = shard.shard.read()
        for served, published in shard.published_names.items():
            # Popped, so that a file that could not be mapped is given back as it is written.
            tensor = tensors.pop(published)
            yield _finite(served, merge(served, tensor) if merge else tensor, target)


def _finite(name: str, tensor: Tensor, target: Target) -> Tensor:
    cast = tensor.to(TORCH_DTYPES[target.dtype])
    if torch.isfinite(cast).all():
        return cast
    if torch.isfinite(tensor).all():
        raise ModelError(f"The tensor {name!r} does not fit into {target.dtype}; choose another dtype in the manifest.")
    raise ModelError(f"The tensor {name!r} holds NaN or infinity; the checkpoint is damaged.")
