"""Types that travel between the stages: frozen, numpy only, no torch, no HTTP.

    SlideFile → SlideFacts → TilePlan → TileBatch… → TileFeatures → SlideEmbedding

Coordinates are level-0 pixels (x, y) of a tile's upper left corner. Tiles are in raster order (y, then x)
everywhere: LongNet and the pooling depend on order, so it is part of the contract.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoders.tile_budget import TileBudget
from model_store.contracts.tile_encoder import Reduction

# "features": whoever made the features that we were given chose the resolution.
MppSource = Literal["property", "override", "features"]
Stage = Literal["tile", "encode_tiles", "find_regions", "encode_regions", "encode_slide"]
# What can be doubtful about a slide that is used all the same; stable, part of the HTTP contract.
WarningCode = Literal[
    "mpp_not_believed",  # the file's µm/px are absurd: taken as not stated
    "mpp_contradicted",  # used, but the objective, tags, description or imaged volume say something else
    "colors_contradicted",  # tiles are not of the colour space that the file says: read by what they say themselves
    "colors_doubted",  # hardly any stain looks like this: RGB and YCbCr may be confused
    "level_not_believed",  # a level of the pyramid is not the slide's, or cannot be placed: not used
    "levels_drawn_from_finer",  # tiles have no bytes, and low levels do not tell whether tissue is missing there
    "step_level_missing",  # regions lie by the slide's last level, because it has not the one that the model steps by
    "tiles_thinned",  # more tiles than the model takes rows: evenly spaced ones were used
    "tile_budget",  # fewer tiles than there are were asked for
    "pictures_not_read",  # other large pictures lie in the file: scans or focal planes, of which one is read
    "finest_level_missing",  # DICOM whose finest file is a resampled one
    "tissue_doubted",  # planned tiles show lines or black rather than tissue
    "detail_doubted",  # level 0 is a smaller picture enlarged
    "features_doubted",  # given features lie elsewhere than the slide's tissue, or cover a part of it
]


@dataclass(frozen=True)
class SlideWarning:
    """One doubt about a slide: a stable code and one or two sentences, 300 characters at most, that hold no path."""

    code: WarningCode
    detail: str


@dataclass(frozen=True)
class SlideFile:
    """A slide on local disk; `slide_id` is the lower-case hex SHA-256 of its bytes.

    With `features_sha256`, `path` is a file of that digest with precomputed features to use instead of its pixels.
    A slide of several files lies in `folder`, which holds no others; `path` is the one of them to open. With `budget`
    not all of its tiles are read; given features are all used.
    """

    slide_id: str
    path: Path
    features_sha256: str | None = None
    folder: Path | None = None
    budget: TileBudget | None = None


@dataclass(frozen=True)
class SlideFacts:
    """What the file says of itself; `mpp` is None when absent or absurd, never guessed. `warnings`: what is doubted."""

    vendor: str
    width: int
    height: int
    mpp: float | None
    objective_power: float | None
    warnings: tuple[SlideWarning, ...] = ()


@dataclass(frozen=True)
class TilePlan:
    """Which tiles to read, from which level.

    A tile covers `tile_px_level0` (fractional) level-0 pixels a side; it is read as `read_px` pixels of `level`
    and reduced to `tile_px`: by area, or ("dct") by the JPEG decoder at a ratio of exactly 2 or 4. `coords` is
    int64 [N, 2], level-0 (x, y), raster order. `warnings` are the slide's own and those found while planning; they
    change no tile, so they are no part of the plan's identity.

    Regions are planned as tiles of level 0 as it is; their order is their grid's, and they may overlap. `unscanned`:
    whether pixels that the file does not have are refused, or black as OpenSlide's are without their alpha.
    """

    width: int
    height: int
    mpp: float
    mpp_source: MppSource
    objective_power: float | None
    target_mpp: float
    tile_px: int
    tile_px_level0: float
    level: int
    read_px: int
    coords: NDArray[np.int64]
    reduction: Reduction = "area"
    warnings: tuple[SlideWarning, ...] = ()
    unscanned: Literal["refused", "black"] = "refused"

    def numbers(self) -> dict[str, object]:
        """Everything that says which pixels are read, but the coordinates."""
        left_out = ("coords", "warnings", "unscanned")
        return {name: value for name, value in vars(self).items() if name not in left_out}


@dataclass(frozen=True)
class TileBatch:
    """Tiles `first … first + len(pixels) - 1` of a plan: uint8 [B, tile_px, tile_px, 3], RGB, white outside.

    From a reader process `pixels` is read-only and valid until the next batch is asked for: copy what is kept.
    """

    first: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class TileFeatures:
    """One row per tile of `plan`: float32 [N, D]."""

    plan: TilePlan
    features: NDArray[np.float32]


@dataclass(frozen=True)
class SlideEmbedding:
    """What is cached and sent to the language model: tensors by name, e.g. `slide_tokens` [576, 768] fp16.

    `tile_count` is 0 when the slide tokens themselves were given: nobody said how many tiles made them. With
    `region_id` it is that of a region of the slide, and counts the region's tiles.
    """

    slide_id: str
    encoder_id: str
    tensors: Mapping[str, NDArray[np.generic]]
    tile_count: int
    mpp_source: MppSource
    created_at: str
    region_id: str | None = None
