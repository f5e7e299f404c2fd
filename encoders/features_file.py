"""The features file: HDF5 as TRIDENT and CLAM read it, plus root attributes that restore our tile plan.

    features  float32 [N, D]
    coords    int64 [N, 2], level-0 (x, y), raster order; attributes patch_size, patch_size_level0, …

The attributes `name` and `savetodir` of others are left out: a slide's name can be PHI. Features that somebody else
made may lack attributes; then ours lack them too, `eyepiece_format_version` among them.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from encoders.errors import StoredFileDamaged
from encoders.precomputed.given_features import PLAN_STATEMENTS, TRIDENT_STATEMENTS, GivenTiles
from encoders.tiling.plan_tiles import stride_px_level0
from encoders.types import MppSource, TileFeatures, TilePlan
from model_store.contracts.tile_encoder import Reduction

FORMAT_VERSION = 1
# The field's magnifications: 40× is 0.25 µm/px, so magnification = 10 / mpp.
_MAGNIFICATION_MPP = 10.0
_CHUNK_BYTES = 2**20
_Positive = Annotated[int, Field(gt=0)]
_PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _PlanAttributes(BaseModel):
    """Root attributes: what a TilePlan holds besides its coordinates."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    eyepiece_format_version: Literal[1]
    width: _Positive
    height: _Positive
    mpp: _PositiveFloat
    mpp_source: MppSource
    objective_power: _PositiveFloat | None = None
    target_mpp: _PositiveFloat
    tile_px: _Positive
    tile_px_level0: _PositiveFloat
    level: Annotated[int, Field(ge=0)]
    read_px: _Positive
    # Files from before there was a choice lack it.
    reduction: Reduction = "area"


def write_features(path: Path, features: TileFeatures) -> None:
    """Writes the file under a temporary name beside `path` and publishes it atomically."""
    with _published(path) as file:
        _fill(file, features)


def write_given_features(path: Path, given: GivenTiles) -> None:
    """The same of features that were given to us, with the attributes that they came with and no others."""
    plan = given.plan
    if plan is not None:
        write_features(path, TileFeatures(plan, given.features))
        return
    said = given.statements.model_dump(exclude_none=True)
    facts = {"width": said.get("level0_width"), "height": said.get("level0_height")} | said
    with _published(path) as file:
        _checksummed(file, "features", given.features)
        coords = _checksummed(file, "coords", given.coords)
        coords.attrs.update({name: said[name] for name in TRIDENT_STATEMENTS if name in said})
        file.attrs.update({name: facts[name] for name in PLAN_STATEMENTS if facts.get(name) is not None})


@dataclass(frozen=True)
class StoredFacts:
    """What a features file says of its slide: level-0 pixels, µm/px; None where it says nothing."""

    width: int | None
    height: int | None
    mpp: float | None
    objective_power: float | None


def read_facts(path: Path) -> StoredFacts:
    """The slide behind a file of ours; raises StoredFileDamaged."""
    try:
        with h5py.File(path, "r") as file:
            return StoredFacts(**{name: _plain(file.attrs.get(name)) for name in StoredFacts.__annotations__})
    except OSError as error:
        raise _damaged() from error


def read_features(path: Path) -> TileFeatures:
    """Reads a file of ours; raises StoredFileDamaged when it is cut, foreign or contradicts itself."""
    try:
        with h5py.File(path, "r") as file:
            attributes = _PlanAttributes.model_validate({name: _plain(value) for name, value in file.attrs.items()})
            features = np.asarray(file["features"][()], dtype=np.float32)
            coords = np.asarray(file["coords"][()], dtype=np.int64)
    except (OSError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise _damaged() from error
    if features.ndim != 2 or coords.shape != (len(features), 2) or not np.isfinite(features).all():
        raise _damaged()
    return TileFeatures(_plan(attributes, coords), features)


@contextmanager
def _published(path: Path) -> Iterator[h5py.File]:
    """A new file that appears at `path` when the block ends well."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".features-", suffix=".h5")
    os.close(descriptor)
    try:
        with h5py.File(temporary, "w") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _checksummed(file: h5py.File, name: str, rows: NDArray[np.generic]) -> h5py.Dataset:
    """Rows [N, D] in chunks of about a megabyte, each with the checksum that HDF5 itself verifies: whoever reads a
    flipped byte, a client too, gets an error instead of a number."""
    chunk_rows = max(1, min(len(rows), _CHUNK_BYTES // max(1, rows[:1].nbytes)))
    return file.create_dataset(name, data=rows, chunks=(chunk_rows, rows.shape[1]), fletcher32=True)


def _fill(file: h5py.File, features: TileFeatures) -> None:
    plan = features.plan
    _checksummed(file, "features", features.features.astype(np.float32, copy=False))
    coords = _checksummed(file, "coords", plan.coords.astype(np.int64, copy=False))
    coords.attrs.update(
        {
            "patch_size": plan.tile_px,
            "patch_size_level0": stride_px_level0(plan.tile_px_level0),
            "level0_magnification": _level0_magnification(plan),
            "target_magnification": round(_MAGNIFICATION_MPP / plan.target_mpp),
            "overlap": 0,
            "level0_width": plan.width,
            "level0_height": plan.height,
        }
    )
    own = {name: value for name, value in plan.numbers().items() if value is not None}
    file.attrs.update({"eyepiece_format_version": FORMAT_VERSION, **own})


def _level0_magnification(plan: TilePlan) -> int:
    if plan.mpp_source == "property" and plan.objective_power is not None:
        return round(plan.objective_power)
    return max(1, round(_MAGNIFICATION_MPP / plan.mpp))


def _plan(attributes: _PlanAttributes, coords: NDArray[np.int64]) -> TilePlan:
    return TilePlan(**attributes.model_dump(exclude={"eyepiece_format_version"}), coords=coords)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _damaged() -> StoredFileDamaged:
    return StoredFileDamaged("The stored features cannot be read; encode the slide again.")
