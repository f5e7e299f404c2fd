"""The kinds of tile encoder, which make features of tiles, and how a slide is cut for one.

A model takes one or several inputs of a slide. An input is a tiling with the tile encoder that sees its tiles; several
inputs are several magnifications, or several encoders.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from model_store.contracts.fields import Dtype, Positive, PositiveFloat, Rgb, Table, WeightsPath

Matmul = Literal["dtype", "float8"]
Reduction = Literal["area", "dct"]
InputName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class TilingSpec(Table):
    """Non-overlapping square tiles of `tile_px` pixels at `target_mpp` µm/px, kept by tissue share.

    `reduction` says how a finer level becomes the target: "area" averages whole pixels; "dct" lets the JPEG decoder
    reduce where the ratio is exactly 2 or 4 and the slide's reader can, which is faster and not the same numbers.
    """

    target_mpp: PositiveFloat
    tile_px: Positive
    min_tissue_fraction: Annotated[float, Field(ge=0, le=1)]
    order: Literal["raster"]
    tissue_rule: Literal["otsu-guarded-v2"]
    reduction: Reduction = "area"


class TimmTileEncoder(Table):
    """A timm model on the centre crop of `input_px` pixels; `mean` and `std` are RGB on a scale of 0 to 1.

    `matmul` "float8" multiplies the inner blocks' matrices in 8 bits where an accuracy gate at start-up allows it.
    """

    kind: Literal["timm"]
    timm_model: str
    timm_args: dict[str, Any]
    input_px: Positive
    mean: Rgb
    std: Rgb
    feature_dim: Positive
    dtype: Dtype
    matmul: Matmul = "dtype"
    batch_tiles: Positive
    weights: WeightsPath

    def identity(self) -> dict[str, Any]:
        """What changes its features, beside its weights: not the batch. Encoder ids are older than kinds, so the first
        kind is not named in them; every other one is."""
        return self.model_dump(mode="json", exclude={"kind", "batch_tiles", "weights"})


# One kind so far; the second makes it a union with the discriminator `kind`.
TileEncoderSpec = TimmTileEncoder


class InputSpec(Table):
    """Tiles of a slide, and what sees them."""

    tiling: TilingSpec
    tile_encoder: TileEncoderSpec
