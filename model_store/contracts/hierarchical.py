"""The kind `hierarchical` of slide stage: the networks of MLLM-HWSI and how a slide's regions go through them."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from model_store.contracts.fields import Dtype, Positive, Rgb, Rows, Table, WeightsPath
from model_store.contracts.region_grid import RegionGrid
from model_store.contracts.slide_rows import SlideStage
from model_store.contracts.tile_encoder import InputSpec

# The networks; each has a table and a file of weights.
HIERARCHICAL_NETWORKS: Final = ("vit256", "vit4k", "conch", "cellvit", "cell_fusion", "projector")
# Of a region; a chosen one is kept as one byte.
_MOST_PICTURES: Final = 256


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
