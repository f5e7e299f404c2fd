"""The content of a file of precomputed features, once it is read and checked."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from encoders.types import MppSource, TilePlan
from model_store.contracts.tile_encoder import Reduction

_Positive = Annotated[int, Field(gt=0, le=2**31)]
_PositiveFloat = Annotated[float, Field(gt=0, le=1e9)]
_Count = Annotated[int, Field(ge=0, le=2**31)]


class TileStatements(BaseModel):
    """What a features file says of its tiles; None where it says nothing. Lengths in pixels, mpp in µm/px."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    # Root attributes: ours (encoders.features_file).
    width: _Positive | None = None
    height: _Positive | None = None
    mpp: Annotated[float, Field(ge=0.01, le=100)] | None = None
    mpp_source: MppSource | None = None
    objective_power: Annotated[float, Field(gt=0, le=400)] | None = None
    target_mpp: _PositiveFloat | None = None
    tile_px: _Positive | None = None
    tile_px_level0: _PositiveFloat | None = None
    level: Annotated[int, Field(ge=0, lt=1_024)] | None = None
    read_px: _Positive | None = None
    reduction: Reduction | None = None
    # Attributes of `coords`: TRIDENT's, which CLAM users read.
    patch_size: _Positive | None = None
    patch_size_level0: _Positive | None = None
    level0_magnification: _PositiveFloat | None = None
    target_magnification: _PositiveFloat | None = None
    overlap: _Count | None = None
    level0_width: _Positive | None = None
    level0_height: _Positive | None = None

    @property
    def side_px_level0(self) -> float | None:
        """A tile's side in level-0 pixels."""
        return self.tile_px_level0 or self.patch_size_level0


PLAN_STATEMENTS = (
    "width",
    "height",
    "mpp",
    "mpp_source",
    "objective_power",
    "target_mpp",
    "tile_px",
    "tile_px_level0",
    "level",
    "read_px",
    "reduction",
)
# All others are numbers.
TEXT_STATEMENTS = ("mpp_source", "reduction")
# Not every slide has the one, and files of ours from before there was a choice lack the other.
_MAY_BE_MISSING = ("objective_power", "reduction")
TRIDENT_STATEMENTS = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "overlap",
    "level0_width",
    "level0_height",
)


@dataclass(frozen=True)
class GivenTiles:
    """Tile features float32 [N, D] and their level-0 corners int64 [N, 2], in raster order, no corner twice."""

    features: NDArray[np.float32]
    coords: NDArray[np.int64]
    statements: TileStatements

    @property
    def largest(self) -> float:
        """The largest of the features, whatever its sign."""
        return float(np.abs(self.features).max())

    @property
    def plan(self) -> TilePlan | None:
        """The tile plan that made them, if the file tells all of it, as ours do; nothing is guessed."""
        said = self.statements
        wanted = {name: getattr(said, name) for name in PLAN_STATEMENTS}
        if any(value is None for name, value in wanted.items() if name not in _MAY_BE_MISSING):
            return None
        return TilePlan(**wanted | {"reduction": said.reduction or "area"}, coords=self.coords)


@dataclass(frozen=True)
class GivenSlideTokens:
    """The slide stage's rows, float32 [rows, row_width]: nothing is left to encode."""

    tokens: NDArray[np.float32]


class LevelsShape(BaseModel):
    """Of a file of levels: k chosen patches of each region, widths of the three levels, sides in level-0 pixels."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kept: Annotated[int, Field(gt=0, le=256)]
    region_dim: _Positive
    patch_dim: _Positive
    cell_dim: _Positive
    region_px: _Positive
    patch_px: _Positive
    level0_width: _Positive | None = None
    level0_height: _Positive | None = None

    @property
    def columns(self) -> int:
        """Of a region's numbers side by side: its vector, the index of each patch, their vectors, their cells'."""
        return self.region_dim + self.kept * (1 + self.patch_dim + self.cell_dim)


@dataclass(frozen=True)
class GivenLevels:
    """What the projector of a hierarchical stage reads, of R regions in the order of the file."""

    shape: LevelsShape
    coords: NDArray[np.int64]
    """[R, 2], level-0 corners."""
    region: NDArray[np.float32]
    """[R, region_dim]."""
    patch_index: NDArray[np.uint8]
    """[R, k]."""
    patch: NDArray[np.float32]
    """[R, k, patch_dim]."""
    cell: NDArray[np.float32]
    """[R, k, cell_dim]."""

    @property
    def largest(self) -> float:
        """The largest of their numbers, whatever its sign."""
        return float(max(np.abs(it).max() for it in (self.region, self.patch, self.cell)))

    @classmethod
    def of_rows(cls, shape: LevelsShape, coords: NDArray[np.int64], rows: NDArray[np.float32]) -> "GivenLevels":
        """From rows [R, shape.columns]."""
        k, regions = shape.kept, len(rows)
        ends = np.cumsum([shape.region_dim, k, k * shape.patch_dim])
        region, index, patch, cell = np.split(rows, ends, axis=1)
        return cls(
            shape=shape,
            coords=coords,
            region=np.ascontiguousarray(region),
            patch_index=index.astype(np.uint8),
            patch=patch.reshape(regions, k, shape.patch_dim),
            cell=cell.reshape(regions, k, shape.cell_dim),
        )


GivenFeatures = GivenTiles | GivenSlideTokens | GivenLevels
