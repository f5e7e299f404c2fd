"""Published weights → our safetensors, shard by shard; names and shapes are all checked before a byte is written.

Each shard is read twice, first for names and shapes alone. Memory stays at one shard and a few tensors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model_store.contracts.fields import Dtype
from model_store.convert.float8_weights import SCALE_SUFFIX, float8_rows
from model_store.convert.tensor_names import NameMap
from model_store.errors import ModelError
from model_store.files.write_safetensors import TORCH_DTYPES, Shape, TensorEntry, write_safetensors

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
    """What the weights must become: `part` is its name in errors, `expected` what is read, by served name.

    Floating-point tensors are written as `dtype`; those named in `float8` in 8 bits, with a scale for each row beside
    them. Those named in `packed` are 32-bit integers already and stay as they are.
    """

    part: str
    names: NameMap
    expected: Mapping[str, Shape]
    dtype: Dtype
    float8: Set[str] = field(default_factory=frozenset)
    packed: Set[str] = field(default_factory=frozenset)

    def entries_of(self, served: str) -> list[TensorEntry]:
        """What is written of a tensor that was read."""
        shape = self.expected[served]
        if served in self.packed:
            return [TensorEntry(served, shape, "int32")]
        if served in self.float8:
            scale = TensorEntry(served + SCALE_SUFFIX, (shape[0], 1), "float32")
            return [TensorEntry(served, shape, "float8_e4m3fn"), scale]
        return [TensorEntry(served, shape, self.dtype)]


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
    return write_safetensors(path, entries, _finished_tensors(planned, target, merge))


Merge = Callable[[str, Tensor], Tensor]


def _plan_shard(shard: Shard, target: Target, replaced: Iterable[str] = frozenset()) -> tuple[PlannedShard, list[str]]:
    published_names: dict[str, str] = {}
    entries: list[TensorEntry] = []
    dropped = []
    taken = 0
    for published, tensor in shard.read().items():
        served = target.names.served_name(published)
        if served is None:
            dropped.append(published)
        elif served not in replaced:
            _require_fit(published, served, tensor, shard, target)
            published_names[served] = published
            entries += target.entries_of(served)
            taken += 1
    if taken > len(published_names):
        raise ModelError(f"The {target.part}'s {shard.file} holds a tensor under two names; it cannot be converted.")
    return PlannedShard(shard, published_names, entries), dropped


def _require_fit(published: str, served: str, tensor: Tensor, shard: Shard, target: Target) -> None:
    where = f"The tensor {published!r} in {shard.file}"
    shape = target.expected.get(served)
    if shape is None:
        raise ModelError(f"{where} has no place in the {target.part}; it is another model than the manifest says.")
    if tuple(tensor.shape) != shape:
        raise ModelError(f"{where} has the shape {list(tensor.shape)}, the {target.part} needs {list(shape)}.")
    if served in target.packed:
        if tensor.dtype != torch.int32:
            raise ModelError(f"{where} is {tensor.dtype}, not 32-bit integers; it is quantised in another way.")
    elif not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        raise ModelError(
            f"{where} is {tensor.dtype}, not floating point of 16 or 32 bits; its folder's config.json has to say how "
            "it is quantised."
        )


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
            if served in target.packed:
                yield tensor
                continue
            if merge:
                tensor = merge(served, tensor)
            if served in target.float8:
                yield from float8_rows(_finite(served, tensor.float()))
            else:
                yield _finite(served, tensor, target.dtype)


def _finite(name: str, tensor: Tensor, dtype: Dtype = "float32") -> Tensor:
    cast = tensor.to(TORCH_DTYPES[dtype])
    if torch.isfinite(cast).all():
        return cast
    if torch.isfinite(tensor).all():
        raise ModelError(f"The tensor {name!r} does not fit into {dtype}; choose another dtype in the manifest.")
    raise ModelError(f"The tensor {name!r} holds NaN or infinity; the checkpoint is damaged.")
