"""The kinds of tile encoder, which make features of tiles, and how a slide is cut for one.

A model takes one or several inputs of a slide. An input is a tiling with the tile encoder that sees its tiles; several
inputs are several magnifications, or several encoders.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from model_store.contracts.fields import Dtype, Positive, PositiveFloat, Rgb, Table, WeightsPath

Matmul = Literal["dtype", "float8"]
Reduction = Literal["area", "dct"]
# What is taken of CONCH's image tower: before its projection, behind it, or behind it and of length 1.
ConchOutput = Literal["pooled", "projected", "unit"]
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


class ConchTileEncoder(Table):
    """CONCH's image tower on the centre crop of `input_px` pixels, enlarged as Pillow's bicubic filter does.

    Published: `enlarged_px` 448, `width` 768, `depth` 12, `num_heads` 12, `feature_dim` 512. Of `output`, "pooled" is
    what the public `encode_image` gives with `proj_contrast=False, normalize=False` (as CLAM takes features for
    slides), "projected" with `normalize=False` alone, and "unit" what it gives by itself.
    """

    kind: Literal["conch"]
    input_px: Positive
    enlarged_px: Annotated[int, Field(gt=0, multiple_of=16)]
    width: Positive
    depth: Positive
    num_heads: Positive
    mean: Rgb
    std: Rgb
    output: ConchOutput
    feature_dim: Annotated[int, Field(gt=0, multiple_of=8)]
    dtype: Dtype
    matmul: Matmul = "dtype"
    batch_tiles: Positive
    weights: WeightsPath

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide the width {self.width}")
        return self

    def identity(self) -> dict[str, Any]:
        """What changes its features, beside its weights: not the batch."""
        return self.model_dump(mode="json", exclude={"batch_tiles", "weights"})


TileEncoderSpec = Annotated[TimmTileEncoder | ConchTileEncoder, Field(discriminator="kind")]


class InputSpec(Table):
    """Tiles of a slide, and what sees them."""

    tiling: TilingSpec
    tile_encoder: TileEncoderSpec
