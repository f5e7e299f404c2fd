"""The kinds of slide stage, which make the language model's rows of a slide, as a manifest describes them.

A kind says here, without weights and without torch, everything that the API, the converter and the plugin's config
need: which inputs it takes, how many rows come out and how wide they are, which of its files hold weights, and what of
it belongs into the encoder id. What computes is in `encoders.slide_stages`, by the same name.

Embeddings are named tensors. The one that the language model gets is ROWS [rows, row_width]; others are for people.
It never sees the question: that is what makes an embedding cacheable.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from model_store.contracts.fields import Dtype, Positive, PositiveFloat, Rgb, Rows, Table, WeightsPath
from model_store.contracts.region_grid import Cut, RegionGrid
from model_store.contracts.tile_encoder import InputSpec

ROWS: Final = "slide_tokens"
# As many as an API's probe of the language model asks with, where a stage gives a row for each tile.
_FEW_ROWS: Final = 64
# The networks of a hierarchical stage; each has a table and a file of weights.
HIERARCHICAL_NETWORKS: Final = ("vit256", "vit4k", "conch", "cellvit", "cell_fusion", "projector")
# Of a region; a chosen one is kept as one byte.
_MOST_PICTURES: Final = 256
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


class SlideStage(Table, ABC):
    """The contract of every kind: what a slide stage says of itself before it is loaded."""

    # Whether the rows themselves may be given in a file, in place of tile features.
    rows_can_be_given: ClassVar[bool] = True

    @property
    def needs_side_px_level0(self) -> bool:
        """Whether a tile's side in level-0 pixels is needed, which features from elsewhere may not state."""
        return False

    @abstractmethod
    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """Raises ValueError when these are not the inputs that it takes."""

    def cut(self, inputs: Mapping[str, InputSpec]) -> Cut:
        """How the slide is cut: what is planned, shown to people and counted. Of several inputs that of the first."""
        return next(iter(inputs.values())).tiling

    def given_tiles(self, inputs: Mapping[str, InputSpec]) -> InputSpec | None:
        """The input whose features may be given in a file, in place of a slide's pixels; None where none may."""
        return next(iter(inputs.values())) if len(inputs) == 1 else None

    @abstractmethod
    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """Columns of ROWS."""

    @abstractmethod
    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The fewest rows that a slide can have."""

    @abstractmethod
    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The most that it can have; the same where the number is fixed."""

    def rows_of(self, tiles: int, inputs: Mapping[str, InputSpec]) -> int:
        """Rows of a slide of so many tiles."""
        least, most = self.least_rows(inputs), self.most_rows(inputs)
        return min(max(tiles, least), most)

    def thinned_to(self, tiles: int, inputs: Mapping[str, InputSpec]) -> int | None:
        """How many of so many tiles are used where there is a row for each and too many; None where all are."""
        most = self.most_rows(inputs)
        return most if tiles > most and self.least_rows(inputs) != most else None

    def blank_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """Rows of the blank slide that the language model is probed with: of full size where the number is fixed."""
        return min(self.most_rows(inputs), max(self.least_rows(inputs), _FEW_ROWS))

    def computes_in(self) -> Dtype:
        """The coarsest numbers on the way to its rows."""
        return "float32"

    def weights_files(self) -> dict[str, str]:
        """Its files of weights by the part's name; empty for a stage that learned nothing."""
        return {}

    def identity(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """What changes its rows, the digests of its weights among it, as entries of the encoder id."""
        described = self.model_dump(mode="json", exclude={"weights"})
        return {"slide_stage": described, **{f"{part}_sha256": digests[path] for part, path in self._files()}}

    def _files(self) -> list[tuple[str, str]]:
        return sorted(self.weights_files().items())


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


class Vit256Spec(Table):
    """HIPT's ViT-256: pictures of 256 px → [embed_dim]."""

    embed_dim: Positive
    depth: Positive
    num_heads: Positive
    weights: WeightsPath


class Vit4kSpec(Table):
    """HIPT's ViT-4K: the vectors of a region's pictures → [embed_dim]."""

    embed_dim: Positive
    depth: Positive
    num_heads: Positive
    weights: WeightsPath


class ConchSpec(Table):
    """CONCH's image tower: pictures, enlarged to `input_px` → [embed_dim]; `width` is its trunk's."""

    width: Positive
    depth: Positive
    num_heads: Positive
    embed_dim: Positive
    input_px: Positive
    weights: WeightsPath


class CellVitSpec(Table):
    """CellViT-256: a picture → its cells, a vector of `embed_dim` each.

    `cell_kinds` counts the background; `channels` are the U-Net's, from coarse to fine; `mean` and `std`, RGB on a
    scale of 0 to 1, the checkpoint's. `amp`: what its products are computed in, as by torch's autocast; the public code
    is run in float16. Near-ties of that precision are background.
    """

    embed_dim: Positive
    depth: Annotated[int, Field(gt=0, multiple_of=4)]
    num_heads: Positive
    channels: tuple[Positive, Positive, Positive, Positive]
    cell_kinds: Annotated[int, Field(ge=2, le=6)]
    tissue_kinds: Positive
    mean: Rgb
    std: Rgb
    amp: Literal["none", "float16", "bfloat16"]
    weights: WeightsPath


class CellFusionSpec(Table):
    """The blocks of DINOv2, as wide as CellViT: the cells of a picture → one vector."""

    depth: Positive
    num_heads: Positive
    weights: WeightsPath


class LevelsProjectorSpec(Table):
    """Projectors of all levels, fusion and resampler → [query_tokens, llm_dim]; always float32."""

    hidden_dim: Positive
    query_tokens: Rows
    llm_dim: Annotated[int, Field(gt=0, multiple_of=8)]
    weights: WeightsPath


class Hierarchical(SlideStage):
    """MLLM-HWSI's levels: regions, their pictures, cells of some of these, and the slide. Its projector is part of it.

    It reads the slide itself, so the manifest has no `inputs`. Of a region's pictures `dissimilar` are taken that are
    unlike each other, and of these the `keep` that are most like the `anchor`. `dtype` is what ViT-256, ViT-4K, CONCH
    and the cell fusion are computed in; where it is not float32, a gate at start-up compares the chosen pictures with
    those of float32 and falls back to it.
    """

    kind: Literal["hierarchical"]
    variant: Literal["published"]
    regions: RegionGrid
    patch_px: Literal[256]
    anchor: Literal["first_region"]
    dissimilar: Positive
    keep: Positive
    dtype: Dtype
    vit256: Vit256Spec
    vit4k: Vit4kSpec
    conch: ConchSpec
    cellvit: CellVitSpec
    cell_fusion: CellFusionSpec
    projector: LevelsProjectorSpec

    @field_validator("variant", mode="before")
    @classmethod
    def _only_what_is_defined(cls, variant: object) -> object:
        if variant == "intended":
            raise ValueError(
                "what the authors intended is not defined: they say neither what counts as glass nor which anchor does "
                "not depend on the order of regions; 'published' is what their code does"
            )
        return variant

    @model_validator(mode="after")
    def _pictures_fill_regions(self) -> Self:
        grid, rest = divmod(self.regions.region_px, self.patch_px)
        if rest or grid * grid > _MOST_PICTURES:
            raise ValueError(f"region_px must be a multiple of {self.patch_px} up to {16 * self.patch_px}")
        if self.keep > self.dissimilar:
            raise ValueError(f"keep is {self.keep}, more than the {self.dissimilar} dissimilar ones to keep from")
        for name in ("vit256", "vit4k", "cellvit"):
            network = getattr(self, name)
            if network.embed_dim % network.num_heads:
                raise ValueError(f"{name}.embed_dim must be a multiple of its num_heads")
        if self.cellvit.embed_dim % self.cell_fusion.num_heads or self.conch.width % self.conch.num_heads:
            raise ValueError("widths must be multiples of num_heads, also in conch and cell_fusion")
        if self.conch.embed_dim % 8:
            raise ValueError("conch.embed_dim must be a multiple of 8")
        return self

    @property
    def grid(self) -> int:
        """Pictures along a region's side."""
        return self.regions.region_px // self.patch_px

    @property
    def kept(self) -> int:
        """Pictures that are chosen of each region."""
        return min(self.keep, self.dissimilar, self.grid * self.grid)

    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """None: it cuts the slide itself."""
        if inputs:
            raise ValueError("a slide stage of kind 'hierarchical' takes no inputs; it reads regions itself")

    def cut(self, inputs: Mapping[str, InputSpec]) -> RegionGrid:
        """Its regions."""
        return self.regions

    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """The language model's: the projector has been applied."""
        return self.projector.llm_dim

    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The number is fixed."""
        return self.projector.query_tokens

    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The number is fixed."""
        return self.projector.query_tokens

    def computes_in(self) -> Dtype:
        """The coarser of its networks'."""
        coarse = {self.dtype, self.cellvit.amp}
        return "bfloat16" if "bfloat16" in coarse else "float16" if "float16" in coarse else "float32"

    def weights_files(self) -> dict[str, str]:
        """One for each network."""
        return {name: getattr(self, name).weights for name in HIERARCHICAL_NETWORKS}

    def identity(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Every field but where the weights lie, and what they are."""
        described = self.model_dump(mode="json", exclude={name: {"weights"} for name in HIERARCHICAL_NETWORKS})
        return {"slide_stage": described, **{f"{part}_sha256": digests[path] for part, path in self._files()}}


SlideStageSpec = Annotated[LongnetPool | LongnetAll | Mean | Untouched | Hierarchical, Field(discriminator="kind")]
