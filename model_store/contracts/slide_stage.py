"""The kinds of slide stage, and those that make their rows of tile features; `slide_rows` is their contract."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from model_store.contracts.fields import Dtype, Positive, PositiveFloat, Rows, WeightsPath
from model_store.contracts.hierarchical import Hierarchical
from model_store.contracts.slide_rows import SlideStage
from model_store.contracts.tile_encoder import InputSpec

# What is taken from the slide encoder: encoders.slide_encoder.outputs says what each one is.
SlideOutput = Literal[
    "cls",
    "all_layer_cls",
    "global_pool",
    "all_layer_global_pool",
    "wsi_llava_encoder_out_norm",
    "wsi_llava_encoder_out",
    "wsi_llava_last_state_norm",
    "wsi_llava_last_state",
]


def _only(kind: str, inputs: Mapping[str, InputSpec]) -> InputSpec:
    if len(inputs) != 1:
        raise ValueError(f"a slide stage of kind {kind!r} takes one input, not {len(inputs)}")
    return next(iter(inputs.values()))


def _check_width(kind: str, in_chans: int, inputs: Mapping[str, InputSpec]) -> None:
    width = _only(kind, inputs).tile_encoder.feature_dim
    if in_chans != width:
        raise ValueError(f"in_chans is {in_chans}, the tile encoder's feature_dim {width}")


class LongnetPool(SlideStage):
    """A LongNet over tile features, of which `output` makes `slide_tokens` rows of `embed_dim`.

    `tile_stride_px_level` says which pixels divide a level-0 coordinate to give a grid position: the published
    code always divides by `tile_px`; "level0" divides by the tile's own side in level-0 pixels. `max_wsi_size`
    fixes the attention's segment lengths, counted in the published tiles of 256 px whatever `tile_px` is.
    """

    kind: Literal["longnet-pool"]
    in_chans: Positive
    embed_dim: Positive
    depth: Positive
    num_heads: Positive
    mlp_ratio: PositiveFloat
    slide_ngrids: Positive
    tile_stride_px_level: Literal["tile_px", "level0"]
    max_wsi_size: Positive
    dilated_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)]
    output: SlideOutput
    slide_tokens: Rows
    dtype: Dtype
    weights: WeightsPath

    @model_validator(mode="after")
    def _slide_tokens_are_what_the_output_gives(self) -> Self:
        layers = self.depth + 1
        given = {"cls": 1, "global_pool": 1, "all_layer_cls": layers, "all_layer_global_pool": layers}
        if self.slide_tokens != given.get(self.output, self.slide_tokens):
            raise ValueError(f"output {self.output!r} gives {given[self.output]} slide_tokens")
        return self

    @property
    def needs_side_px_level0(self) -> bool:
        """Where a tile's place on the grid is counted in its own sides."""
        return self.tile_stride_px_level == "level0"

    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """One input, as wide as `in_chans`."""
        _check_width(self.kind, self.in_chans, inputs)

    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """The slide encoder's own width."""
        return self.embed_dim

    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The number is fixed."""
        return self.slide_tokens

    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The number is fixed."""
        return self.slide_tokens

    def computes_in(self) -> Dtype:
        """Its matrices are multiplied in it."""
        return self.dtype

    def weights_files(self) -> dict[str, str]:
        """The slide encoder's."""
        return {"slide_encoder": self.weights}

    def identity(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """In the words of before there were kinds: embeddings that were made then stay valid."""
        described = self.model_dump(mode="json", exclude={"kind", "weights"})
        return {
            "slide_encoder": {"architecture": "longnet", **described},
            "slide_encoder_sha256": digests[self.weights],
        }


class LongnetAll(SlideStage):
    """A LongNet as wide as the tile features, without class token and positions: a row for each tile.

    A slide of more than `max_rows` tiles is thinned evenly before it is encoded. Segment lengths and dilated ratios are
    the attention's branches, pair by pair; one ratio must be 1.
    """

    kind: Literal["longnet-all"]
    in_chans: Positive
    depth: Positive
    num_heads: Positive
    mlp_ratio: PositiveFloat
    segment_lengths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    dilated_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)]
    max_rows: Rows
    dtype: Dtype
    weights: WeightsPath

    @model_validator(mode="after")
    def _branches_are_pairs(self) -> Self:
        if len(self.segment_lengths) != len(self.dilated_ratios) or 1 not in self.dilated_ratios:
            raise ValueError("segment_lengths and dilated_ratios must be as many, and one of the ratios 1")
        if self.in_chans % self.num_heads:
            raise ValueError("in_chans must be a multiple of num_heads")
        return self

    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """One input, as wide as `in_chans`."""
        _check_width(self.kind, self.in_chans, inputs)

    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """That of the tile features."""
        return self.in_chans

    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """A slide has one tile at least."""
        return 1

    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The cap."""
        return self.max_rows

    def computes_in(self) -> Dtype:
        """Its matrices are multiplied in it."""
        return self.dtype

    def weights_files(self) -> dict[str, str]:
        """The slide encoder's."""
        return {"slide_encoder": self.weights}


class Mean(SlideStage):
    """The mean of the tile features: one row for each input. Nothing is learned."""

    kind: Literal["mean"]

    rows_can_be_given: ClassVar[bool] = False

    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """One input or more, of one width."""
        if not inputs:
            raise ValueError("a slide stage of kind 'mean' takes one input or more, not 0")
        widths = {name: given.tile_encoder.feature_dim for name, given in inputs.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"a slide stage of kind 'mean' takes inputs of one width, not {widths}")

    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """That of the tile features."""
        return next(iter(inputs.values())).tile_encoder.feature_dim

    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """One for each input."""
        return len(inputs)

    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """One for each input."""
        return len(inputs)


class Untouched(SlideStage):
    """The tile features as they are: a row for each tile, thinned evenly beyond `max_rows`. Nothing is learned."""

    kind: Literal["none"]
    max_rows: Rows

    rows_can_be_given: ClassVar[bool] = False

    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """One input."""
        _only(self.kind, inputs)

    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """That of the tile features."""
        return _only(self.kind, inputs).tile_encoder.feature_dim

    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """A slide has one tile at least."""
        return 1

    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The cap."""
        return self.max_rows


SlideStageSpec = Annotated[LongnetPool | LongnetAll | Mean | Untouched | Hierarchical, Field(discriminator="kind")]
