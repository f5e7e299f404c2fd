"""Checks that features can stand in for the served model's own. Pure; every refusal says what to do."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnusableFeatures
from encoders.precomputed.check_geometry import MAGNIFICATION_MPP, check_geometry
from encoders.precomputed.given_features import LevelsShape, TileStatements
from encoders.tiling.plan_tiles import stride_px_level0
from model_store.contracts.hierarchical import Hierarchical
from model_store.manifest import Manifest

# As much as a slide may be coarser than the target.
_SCALE_TOLERATED = 0.10
_LARGEST_HALF = float(np.finfo(np.float16).max)
# No encoder gives a row of zeros; a tool may leave out a tile or two of a slide and keep their places.
_ZERO_ROWS_TOLERATED = 0.05
# Tiles of unscanned white are equal to the last bit, and so are their features. Tiles are cut where there is tissue: of
# those never most, and tissue is never equal to itself elsewhere.
_EQUAL_ROWS_TOLERATED = 0.5
# Fewer rows may be alike by chance.
_FEW_ROWS = 8
# Of a row's length: what rounding to 16 bits and a GPU's order of adding change. Two tiles of the same glass differ by
# more, for no two have the same noise.
_ROUNDING = 2e-3
_SAMPLED_ROWS = 512


def check_shape(rows: int, columns: int, manifest: Manifest, *, has_coords: bool) -> None:
    """Raises UnusableFeatures unless the array has the shape of tile features, or of slide tokens."""
    stage, own, width = manifest.slide_stage, manifest.row_width, manifest.projector_width
    features = None if manifest.given_tiles is None else manifest.given_tiles.tile_encoder.feature_dim
    if features is None and (has_coords or not stage.rows_can_be_given):
        raise UnusableFeatures(
            "The served model does not see a slide through the features of one tile encoder; send the slide itself."
        )
    if has_coords:
        if columns != features:
            raise UnusableFeatures(
                f"The tile features are {columns} wide; the served model needs {features}. Send the features of "
                "its own tile encoder, or the slide itself."
            )
        return
    if not stage.rows_can_be_given:
        raise UnusableFeatures(
            "The file has no coordinates. Send tile features with `coords`, level-0 pixels, or the slide itself."
        )
    least, most = stage.least_rows(manifest.inputs), stage.most_rows(manifest.inputs)
    if not least <= rows <= most or columns not in (own, width):
        counted = str(most) if least == most else f"{least} to {most}"
        raise UnusableFeatures(
            f"The file has {rows} × {columns} values and no coordinates. Tile features need `coords`, level-0 pixels; "
            f"slide features of the served model are {counted} × {own}, or zero-padded {counted} × {width}. Send one "
            "of these."
        )
    if columns == features:
        raise UnusableFeatures(
            f"The array of {rows} × {columns} values could be tile features or slide features; add `coords` to the "
            "one, zero-pad the other."
        )


def check_levels(shape: LevelsShape, coords: NDArray[np.int64], manifest: Manifest) -> None:
    """Raises UnusableFeatures unless a file of levels is of such levels as the served model's projector reads."""
    stage = manifest.slide_stage
    if not isinstance(stage, Hierarchical):
        raise UnusableFeatures("The file holds levels and the served model reads tiles; send the slide itself.")
    wanted = LevelsShape(
        kept=stage.kept,
        region_dim=stage.vit4k.embed_dim,
        patch_dim=stage.conch.embed_dim,
        cell_dim=stage.cellvit.embed_dim,
        region_px=stage.regions.region_px,
        patch_px=stage.patch_px,
    )
    for name, value in wanted.model_dump(exclude_none=True).items():
        if getattr(shape, name) != value:
            raise UnusableFeatures(
                f"The levels have {name} {getattr(shape, name)}; the served model needs {value}. Send levels of this "
                "model, or the slide itself."
            )
    if (coords < 0).any():
        raise UnusableFeatures("Corners of regions must be level-0 pixels, none negative; send them so.")


def check_range(features: NDArray[np.float32]) -> None:
    """Raises UnusableFeatures for tile features [N, D], in the file's order, beyond the range of 16-bit floats: no tile
    encoder makes such numbers, and a slide encoder overflows on them or is blinded by them."""
    largest = np.maximum(features.max(axis=1), -features.min(axis=1))
    beyond = np.flatnonzero(largest > _LARGEST_HALF)
    if len(beyond):
        raise UnusableFeatures(
            f"{len(beyond)} rows of the features, the first is {beyond[0]}, hold values up to {largest.max():.1e}; no "
            f"tile encoder's are beyond {_LARGEST_HALF:g}. Extract them again, or send the slide itself."
        )


def check_written(features: NDArray[np.float32]) -> None:
    """Raises UnusableFeatures for rows [N, D] too many of which are zero: a file that was made in its full size and
    never filled."""
    rows = len(features)
    zero = int((~features.any(axis=1)).sum())
    if zero > rows * _ZERO_ROWS_TOLERATED:
        raise UnusableFeatures(
            f"{zero} of {rows} rows of the features are all zero: the file was not filled. Make the features again, or "
            "send the slide itself."
        )


def check_filled(features: NDArray[np.float32]) -> None:
    """The same of tile features [N, D], also where the output is the same for every tile."""
    check_written(features)
    rows = len(features)
    equal = _most_equal_rows(features) if rows >= _FEW_ROWS else 0
    if equal > rows * _EQUAL_ROWS_TOLERATED:
        raise UnusableFeatures(
            f"{equal} of {rows} rows of the features are the same row: they are not of different pieces of tissue. "
            "Make the features again, or send the slide itself."
        )
    if rows >= _FEW_ROWS and _nearly_equal_share(features) > _EQUAL_ROWS_TOLERATED:
        raise UnusableFeatures(
            "More than half of the features' rows are the same row but for rounding: they are not of different pieces "
            "of tissue. Make the features again, or send the slide itself."
        )


def _nearly_equal_share(features: NDArray[np.float32]) -> float:
    """The share of rows, of some hundred that are spread over the file, that lie next to the middle one of each
    column: where most are alike, that is what they are like."""
    sampled = features[np.unique(np.linspace(0, len(features) - 1, _SAMPLED_ROWS).astype(np.int64))]
    middle = np.median(sampled, axis=0)
    distances = np.linalg.norm(sampled - middle, axis=1)
    return float((distances <= _ROUNDING * np.linalg.norm(middle)).mean())


def _most_equal_rows(features: NDArray[np.float32]) -> int:
    """How many rows equal the commonest one, if these are more than half; else anything up to half.

    More than half of the rows would make up the middle of each column. So one column says that there are none, but
    where it has one value in most rows, and no copy of the features is made.
    """
    half = len(features) // 2
    alike = np.flatnonzero(features[:, 0] == np.partition(features[:, 0], half)[half])
    if len(alike) <= half:
        return 0
    return max(Counter(hash(features[row].tobytes()) for row in alike).values())


def slide_tokens(values: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32]:
    """Slide tokens without the projector's zero padding: [slide_tokens, embed_dim]."""
    own = manifest.row_width
    if values[:, own:].any():
        raise UnusableFeatures(
            f"The slide features are {values.shape[1]} wide and columns {own} and beyond are not all zero; the served "
            f"model's are {own} wide. Send those."
        )
    tokens = values[:, :own]
    if not tokens.any():
        raise UnusableFeatures(
            "The slide features are all zero: the file was not filled. Make them again, or send the slide itself."
        )
    beyond = np.flatnonzero(np.abs(tokens).max(axis=1) > _LARGEST_HALF)
    if len(beyond):
        raise UnusableFeatures(
            f"{len(beyond)} rows of the slide features, the first is {beyond[0]}, hold values beyond the range of "
            "16-bit floats. Extract them again, or send the slide itself."
        )
    return tokens


def check_tiles(coords: NDArray[np.int64], said: TileStatements, manifest: Manifest) -> None:
    """Raises UnusableFeatures when the file itself says that its tiles are not such as the model was made for, or
    contradicts itself."""
    if (coords < 0).any():
        raise UnusableFeatures(
            "`coords` must be level-0 pixels from the slide's upper left corner, none negative; send them so."
        )
    if len(np.unique(coords, axis=0)) < len(coords):
        raise UnusableFeatures("Two rows of `coords` are the same tile; send every tile once.")
    _check_scale(said, manifest)
    _check_side(said, manifest)
    check_geometry(coords, said, manifest.first_input.tiling)


def _check_scale(said: TileStatements, manifest: Manifest) -> None:
    target = manifest.first_input.tiling.target_mpp
    given = said.target_mpp
    if given is None and said.target_magnification is not None:
        given = MAGNIFICATION_MPP / said.target_magnification
    if given is not None and abs(given / target - 1) > _SCALE_TOLERATED:
        raise UnusableFeatures(
            f"The features were made at {given:g} µm/px; the served model needs {target:g}. Extract them again, or "
            "send the slide itself."
        )


def _check_side(said: TileStatements, manifest: Manifest) -> None:
    tile_px = manifest.first_input.tiling.tile_px
    if {said.tile_px, said.patch_size} - {None, tile_px}:
        raise UnusableFeatures(
            f"The features were made from tiles of another size; the served model needs {tile_px} px. Extract them "
            "again, or send the slide itself."
        )
    if said.overlap:
        raise UnusableFeatures(
            "The features were made from overlapping tiles; the served model needs them side by side. Extract them "
            "again without overlap, or send the slide itself."
        )
    sides = {stride_px_level0(side) for side in (said.tile_px_level0, said.patch_size_level0) if side is not None}
    if len(sides) > 1:
        raise UnusableFeatures("The file names two different tile sides in level-0 pixels; correct its attributes.")
    if not sides and manifest.slide_stage.needs_side_px_level0:
        raise UnusableFeatures(
            "The served model needs the tile's side in level-0 pixels: send HDF5 whose dataset `coords` has the "
            "attribute `patch_size_level0`."
        )


def raster_order(coords: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices that put the tiles in raster order (y, then x)."""
    return np.lexsort((coords[:, 0], coords[:, 1])).astype(np.int64)
