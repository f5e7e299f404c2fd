"""What a model is: one TOML file, validated strictly. It reads no weights and reaches for no network.

A manifest is packaged under `manifests/<name>.toml`, or with its whole model under `packaged/<name>/`. It is copied
into the installed model's folder, so that what was installed and what is served are described by the same text.
"""

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from model_store.errors import ModelError

MANIFEST_FILE = "manifest.toml"
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rgb = tuple[float, float, float]
Dtype = Literal["float32", "float16", "bfloat16"]
Matmul = Literal["dtype", "float8"]
Reduction = Literal["area", "dct"]
# How the language model's matrices are stored; "none" is `dtype`. docs/published-models.md says what each one is.
Quantization = Literal["none", "fp8", "awq", "gptq"]
# A model's name is also a folder name: no separator, no leading dot.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ModelName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
PromptTemplate = Literal["llava_v1", "vicuna_v1"]
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
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# "unrecorded" says in so many words that nobody told us; an empty or missing value would only look like an oversight.
Revision = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|unrecorded)$")]
WeightsPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+/[A-Za-z0-9_-]+\.safetensors$")]


Part = Literal["tile_encoder", "slide_encoder", "llm", "llm_base", "llm_quantized"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """What made or defines the model, pinned: code and a revision of it."""

    repository: str
    revision: str


class Download(_Strict):
    """Published files that `fetch` gets and `convert` reads: a repository on the public hub and file patterns in it.

    `digests` says where `sha256` (by path in the repository) comes from: the publisher; this machine, when it first
    converted the files; or nowhere yet, and then whatever comes first is trusted, printed and recorded.
    """

    repository: str
    revision: Revision
    gated: bool
    licence: str
    patterns: Annotated[tuple[str, ...], Field(min_length=1)]
    digests: Literal["published", "recorded", "unrecorded"]
    sha256: dict[str, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _digests_agree_with_sha256(self) -> Self:
        if (self.digests == "unrecorded") == bool(self.sha256):
            raise ValueError("digests must be 'unrecorded' exactly when no sha256 is given")
        return self


class Downloads(_Strict):
    """One download for each part; `llm_base` is what an adapter or a projector alone is applied to.

    `llm_quantized` is the language model in 4 bits where somebody published it (`convert --quantize awq|gptq`).
    """

    tile_encoder: Download
    slide_encoder: Download
    llm: Download
    llm_base: Download
    llm_quantized: Download | None = None

    def by_part(self) -> dict[Part, Download]:
        """Those that there are, in the order in which they are fetched."""
        needed: dict[Part, Download] = {
            "tile_encoder": self.tile_encoder,
            "slide_encoder": self.slide_encoder,
            "llm": self.llm,
            "llm_base": self.llm_base,
        }
        return needed if self.llm_quantized is None else {**needed, "llm_quantized": self.llm_quantized}


class TilingSpec(_Strict):
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


class TileEncoderSpec(_Strict):
    """A timm model on the centre crop of `input_px` pixels; `mean` and `std` are RGB on a scale of 0 to 1.

    `matmul` "float8" multiplies the inner blocks' matrices in 8 bits where an accuracy gate at start-up allows it.
    """

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


class SlideEncoderSpec(_Strict):
    """A LongNet over tile features, of which `output` makes `slide_tokens` rows of `embed_dim`.

    `tile_stride_px_level` says which pixels divide a level-0 coordinate to give a grid position: the published
    code always divides by `tile_px`; "level0" divides by the tile's own side in level-0 pixels. `max_wsi_size`
    fixes the attention's segment lengths, counted in the published tiles of 256 px whatever `tile_px` is.
    """

    architecture: Literal["longnet"]
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
    slide_tokens: Positive
    dtype: Dtype
    weights: WeightsPath

    @model_validator(mode="after")
    def _slide_tokens_are_what_the_output_gives(self) -> Self:
        layers = self.depth + 1
        given = {"cls": 1, "global_pool": 1, "all_layer_cls": layers, "all_layer_global_pool": layers}
        if self.slide_tokens != given.get(self.output, self.slide_tokens):
            raise ValueError(f"output {self.output!r} gives {given[self.output]} slide_tokens")
        return self


class GenerationDefaults(_Strict):
    """What a question gets when it does not say otherwise.

    With `no_repeat_ngram_size` n, no n tokens stand in an answer twice in the same order; the prompt does not count.
    """

    temperature: Annotated[float, Field(ge=0, le=2)]
    max_tokens: Positive
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    no_repeat_ngram_size: Positive | None = None


class LlmSpec(_Strict):
    """The folder that vLLM serves: projector (input width `projector_width`) and language model.

    `dtype` is what is computed in, and what is stored but for the matrices of the layers where `quantization` says
    otherwise.
    """

    path: Literal["llm"]
    served_name: str
    prompt_template: PromptTemplate
    placeholder: Literal["<image>"]
    max_model_len: Positive
    dtype: Dtype
    quantization: Quantization = "none"
    projector_width: Positive
    generation: GenerationDefaults


class Manifest(_Strict):
    """Everything that says what a model is; `notice` goes with every answer.

    A model without `downloads` ships with Eyepiece (model_store.packaged_models).
    """

    name: ModelName
    title: str
    notice: str
    licence: str
    source: Source
    tiling: TilingSpec
    tile_encoder: TileEncoderSpec
    slide_encoder: SlideEncoderSpec
    llm: LlmSpec
    downloads: Downloads | None = None


def load_manifest(path: Path) -> Manifest:
    """The manifest in a TOML file; raises ModelError that names the first wrong field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError("The model has no readable manifest; install the model again.") from error
    return parse_manifest(text)


def packaged_manifest(name: str) -> Manifest:
    """The manifest that ships with Eyepiece under this name; raises ModelError for an unknown name."""
    return parse_manifest(packaged_manifest_text(name))


def packaged_manifest_text(name: str) -> str:
    """The TOML text that an installation of this model copies into its folder."""
    known = _packaged_manifests()
    if name not in known:
        raise ModelError(f"There is no model {name!r}; known are: {', '.join(sorted(known))}.")
    return known[name].read_text(encoding="utf-8")


def parse_manifest(text: str) -> Manifest:
    """A manifest from TOML text; raises ModelError that names the first wrong field."""
    try:
        return Manifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"The model's manifest is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"The model's manifest is wrong at {field!r}: {first['msg']}.") from error


def packaged_names() -> list[str]:
    """The models that Eyepiece knows, sorted."""
    return sorted(_packaged_manifests())


def _packaged_manifests() -> dict[str, Traversable]:
    ours = resources.files("model_store")
    alone = {entry.name.removesuffix(".toml"): entry for entry in (ours / "manifests").iterdir()}
    with_weights = {entry.name: entry / MANIFEST_FILE for entry in (ours / "packaged").iterdir()}
    return alone | {name: entry for name, entry in with_weights.items() if entry.is_file()}
