"""Regions in parts, kept while a slide is being encoded: a killed job goes on behind the last one, on any worker.

A part is a safetensors file, named as a part of features is (encoders.feature_parts) after its first region and how
many there are:

    region [n, Dr], patch [n, k, Dp], cell [n, k, Dc], anchor [Dp]   float32
    patch_index                                                      uint8 [n, k]
    cells.patch, cells.centroid, cells.kind, cells.outline_start, cells.outline   as in the file of levels
    metadata  format_version, plan (SHA-256 of the plan), first, count, sha256 (of all tensors)

Nothing in it is PHI. Whatever does not fit the plan or the model is ignored: those regions are encoded again.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from encoders.feature_parts import FeatureParts, part_name, plan_digest, spans
from encoders.hierarchical.levels import FoundCells
from encoders.hierarchical.region_levels import RegionLevels, join_regions
from encoders.types import TilePlan
from model_store.contracts.hierarchical import Hierarchical

FORMAT_VERSION: Final = "regions-1"
# With the published widths a region is 58 kB and its cells as much again.
_MOST_REGIONS: Final = 64
# A region that takes longer is kept as soon as it is there.
_EVERY_S: Final = 1.0
# A safetensors file begins with the length of its JSON header, u64 little-endian.
_LENGTH_BYTES: Final = 8

_Arrays = dict[str, NDArray[Any]]


def load_regions(parts: FeatureParts, plan: TilePlan, spec: Hierarchical) -> list[RegionLevels]:
    """What is kept of this very plan, from its first region on without a gap."""
    digest, done = plan_digest(plan), 0
    kept: list[RegionLevels] = []
    for first, count in spans(parts.names()):
        if first != done or first + count > len(plan.coords):
            continue  # part of one that was taken, or behind a gap
        regions = _regions(parts.read(part_name(first, count)), _metadata(digest, first, count), spec)
        if regions is not None:
            kept.append(regions)
            done += count
    return kept


class RegionWriter:
    """Keeps regions as they get ready, one write at a time; the encoder never waits for it.

    A part is due a second after the last, so a worker that is killed loses that second and the region in hand. Leaving
    the block writes what is left, also after an error, and waits for it.
    """

    def __init__(self, parts: FeatureParts, plan: TilePlan, kept: int) -> None:
        self._parts = parts
        self._digest = plan_digest(plan)
        self._first = kept
        self._waiting: list[RegionLevels] = []
        self._begun = 0
        self._writing: Future[bool] = Future()
        self._writing.set_result(True)
        self._last_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._last_was_taken() and self._waiting:
            self._write()

    def add(self, region: RegionLevels) -> None:
        """The next region of the plan."""
        self._waiting.append(region)
        if time.monotonic() - self._last_s >= _EVERY_S and self._writing.done():
            self._last_was_taken()
            self._write()

    def _last_was_taken(self) -> bool:
        """Waits for the write under way; what the store did not take stays for the next one."""
        taken = self._writing.result()
        if taken:
            self._first += sum(len(region.region) for region in self._waiting[: self._begun])
            del self._waiting[: self._begun]
        self._begun = 0
        return taken

    def _write(self) -> None:
        some = self._waiting[:_MOST_REGIONS]
        if not some:
            return
        regions = join_regions(some)
        name = part_name(self._first, len(regions.region))
        content = _part_bytes(_metadata(self._digest, self._first, len(regions.region)), regions)
        self._writing, self._begun, self._last_s = self._parts.write(name, content), len(some), time.monotonic()


def _part_bytes(metadata: dict[str, str], regions: RegionLevels) -> bytes:
    arrays = {name: np.ascontiguousarray(values) for name, values in _arrays(regions)}
    return safetensors_numpy.save(arrays, {**metadata, "sha256": _sha256(arrays)})


def _arrays(regions: RegionLevels) -> Iterator[tuple[str, NDArray[Any]]]:
    yield from ((name, values) for name, values in vars(regions).items() if name != "cells")
    yield from ((f"cells.{name}", values) for name, values in vars(regions.cells).items())


def _metadata(digest: str, first: int, count: int) -> dict[str, str]:
    return {"format_version": FORMAT_VERSION, "plan": digest, "first": str(first), "count": str(count)}


def _regions(content: bytes | None, metadata: dict[str, str], spec: Hierarchical) -> RegionLevels | None:
    """The regions in a part, None unless the part is what its metadata must say and fits the model."""
    if content is None:
        return None
    try:
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        stated = json.loads(content[_LENGTH_BYTES:end])["__metadata__"]
        sha256 = stated.pop("sha256")
        arrays: _Arrays = safetensors_numpy.load(content)
        if stated != metadata or sha256 != _sha256(arrays):
            return None
        cells = FoundCells(**{name: arrays.pop(f"cells.{name}") for name in FoundCells.__annotations__})
        regions = RegionLevels(**arrays, cells=cells)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return regions if _fits(regions, int(metadata["count"]), spec) else None


def _fits(regions: RegionLevels, count: int, spec: Hierarchical) -> bool:
    """Shapes alone: what was written with that checksum was written by this code."""
    k, patch_dim = spec.kept, spec.conch.embed_dim
    return (
        regions.region.shape == (count, spec.vit4k.embed_dim)
        and regions.patch_index.shape == (count, k)
        and regions.patch.shape == (count, k, patch_dim)
        and regions.cell.shape == (count, k, spec.cellvit.embed_dim)
        and regions.anchor.shape == (patch_dim,)
    )


def _sha256(arrays: _Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
