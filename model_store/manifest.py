"""What a model is: one TOML file, validated strictly. It reads no weights and reaches for no network.

A manifest is packaged under `manifests/<name>.toml`, or with its whole model under `packaged/<name>/`. It is copied
into the installed model's folder, so that what was installed and what is served are described by the same text.
"""

import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from model_store.contracts.fields import Dtype, Positive, PositiveFloat, Table
from model_store.contracts.projector import ProjectorSpec
from model_store.contracts.prompt import PromptSpec
from model_store.contracts.region_grid import Cut
from model_store.contracts.slide_stage import LongnetPool, SlideStageSpec
from model_store.contracts.tile_encoder import InputName, InputSpec, TimmTileEncoder
from model_store.errors import ModelError
from model_store.manifest_before_kinds import as_composed

MANIFEST_FILE = "manifest.toml"
# How the language model's matrices are stored; "none" is `dtype`. docs/published-models.md says what each one is.
Quantization = Literal["none", "fp8", "awq", "gptq"]
# A model's name is also a folder name: no separator, no leading dot.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ModelName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# "unrecorded" says in so many words that nobody told us; an empty or missing value would only look like an oversight.
Revision = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|unrecorded)$")]


# What is fetched into a folder of its own. `convert` knows tile_encoder, slide_encoder and llm; llm_base, what an
# adapter or a projector alone is applied to; llm_quantized, the language model in 4 bits where somebody published it.
Part = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
# Tables whose kind is part of where an error is, but not of the file; the last of them stands in every input.
_UNIONS: Final = ("slide_stage", "projector", "prompt", "tile_encoder")

# Tiles of one size, or the levels of a hierarchy: regions, their patches, the cells in them.
Reads = Literal["tiles", "levels"]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z ,-]{0,63}$")]
ExampleQuestion = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Source(Table):
    """What made or defines the model, pinned: code and a revision of it."""

    repository: str
    revision: str


class Download(Table):
    """Published files that `fetch` gets and `convert` reads: a repository on the public hub and file patterns in it.

    With a `page` they are on no hub: it says where a person finds them, and `fetch` asks for them.
    `digests` says where `sha256` (by path in the repository) comes from: the publisher; this machine, when it first
    converted the files; or nowhere yet, and then whatever comes first is trusted, printed and recorded.
    """

    repository: str
    revision: Revision
    page: str | None = None
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


class GenerationDefaults(Table):
    """What a question gets when it does not say otherwise.

    `top_k` and `top_p` count where the temperature is not 0; `stop_tokens` end an answer beside the language model's
    own end. The last two look at the answer alone, never at the prompt: with `no_repeat_ngram_size` n, no n tokens
    stand in it twice in the same order; a token that it holds has its score divided by `generated_repetition_penalty`
    where it is positive, else multiplied.
    """

    temperature: Annotated[float, Field(ge=0, le=2)]
    max_tokens: Positive
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Positive | None = None
    stop_tokens: tuple[str, ...] = ()
    no_repeat_ngram_size: Positive | None = None
    generated_repetition_penalty: PositiveFloat | None = None


class LlmSpec(Table):
    """The folder that vLLM serves: projector and language model, whichever of the plugin's families it is of.

    `dtype` is what is computed in, and what is stored but for the matrices of the layers where `quantization` says
    otherwise.
    """

    path: Literal["llm"]
    served_name: str
    max_model_len: Positive
    dtype: Dtype
    quantization: Quantization = "none"
    generation: GenerationDefaults


class Abilities(Table):
    """What the model can be asked, for people who are about to ask; empty where nobody has said it.

    `topics` are what its training taught it to answer, each with a question for an example. `trained_turns` is how many
    turns the longest conversation had that it was trained on; beyond that its answers are of a kind that nobody saw.
    """

    topics: Annotated[dict[TopicName, ExampleQuestion], Field(max_length=64)] = Field(default_factory=dict)
    trained_turns: Positive | None = None


class Manifest(Table):
    """Everything that says what a model is; `notice` goes with every answer.

    Four contracts are composed: tile encoders (in `inputs`, none for a slide stage that reads the slide itself), slide
    stage, projector, prompt; each is of one of the kinds in `model_store.contracts`. A model without `downloads` ships
    with Eyepiece (model_store.packaged_models) or comes as a folder (model_store.compose). `doubts` are what converting
    its weights found wrong with them; they go with every answer too.
    """

    name: ModelName
    title: str
    notice: str
    licence: str
    doubts: tuple[str, ...] = ()
    source: Source
    inputs: dict[InputName, InputSpec] = Field(default_factory=dict)
    slide_stage: SlideStageSpec
    projector: ProjectorSpec
    prompt: PromptSpec
    llm: LlmSpec
    abilities: Abilities = Abilities()
    downloads: dict[Part, Download] | None = None

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> Self:
        self.slide_stage.check_inputs(self.inputs)
        _ = self.projector_width
        if self.most_rows >= self.llm.max_model_len:
            raise ValueError(
                f"a slide of {self.most_rows} rows leaves no room in a max_model_len of {self.llm.max_model_len}"
            )
        return self

    @property
    def cut(self) -> Cut:
        """How a slide is cut: what is planned, counted, and shown to people."""
        return self.slide_stage.cut(self.inputs)

    @property
    def given_tiles(self) -> InputSpec | None:
        """The input whose features may be given in place of a slide's pixels."""
        return self.slide_stage.given_tiles(self.inputs)

    @property
    def first_input(self) -> InputSpec:
        """The input whose tiles are kept as the slide's features; raises ModelError for a model without inputs."""
        if not self.inputs:
            raise ModelError(f"Model {self.name!r} has no tile encoder: its slide stage reads regions itself.")
        return next(iter(self.inputs.values()))

    @property
    def reads(self) -> Reads:
        """What of a slide it sees."""
        return "tiles" if self.inputs else "levels"

    @property
    def row_width(self) -> int:
        """Columns of a slide's rows, as they are cached and sent to vLLM."""
        return self.slide_stage.row_width(self.inputs)

    @property
    def projector_width(self) -> int:
        """Columns that the projector reads: those of a row, and zeros on the right up to here."""
        return self.projector.input_width(self.row_width)

    @property
    def most_rows(self) -> int:
        """The most rows that a slide has in a prompt."""
        return self.slide_stage.most_rows(self.inputs)

    def with_inputs(self, *, tiling: Mapping[str, Any] = {}, tile_encoder: Mapping[str, Any] = {}) -> Self:
        """The manifest with some fields of every input's tiling and tile encoder changed."""
        inputs = {
            name: InputSpec(
                tiling=given.tiling.model_copy(update=dict(tiling)),
                tile_encoder=given.tile_encoder.model_copy(update=dict(tile_encoder)),
            )
            for name, given in self.inputs.items()
        }
        return self.model_copy(update={"inputs": inputs})

    def longnet_pool(self) -> LongnetPool:
        """The slide stage, where it is of that kind; raises ModelError for others."""
        if not isinstance(self.slide_stage, LongnetPool):
            raise ModelError(
                f"Model {self.name!r} has a slide stage of kind {self.slide_stage.kind!r}, not longnet-pool."
            )
        return self.slide_stage

    def timm_tile_encoder(self) -> TimmTileEncoder:
        """The first input's tile encoder, where it is of that kind; raises ModelError for others."""
        spec = self.first_input.tile_encoder
        if not isinstance(spec, TimmTileEncoder):
            raise ModelError(f"Model {self.name!r} has a tile encoder of kind {spec.kind!r}, not timm.")
        return spec

    def weights_files(self) -> dict[str, str]:
        """Every file of encoder weights, by a name for people."""
        tiles = {_part("tile encoder", name, self.inputs): it.tile_encoder.weights for name, it in self.inputs.items()}
        return tiles | {part.replace("_", " "): file for part, file in self.slide_stage.weights_files().items()}


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
        return Manifest.model_validate(as_composed(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"The model's manifest is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ModelError(_what_is_wrong(first)) from error


def _what_is_wrong(error: ErrorDetails) -> str:
    place = list(error["loc"])
    union = next((index for index, part in enumerate(place) if part in _UNIONS), None)
    if union is not None:
        del place[union + 1 : union + 2]
    field = ".".join(str(part) for part in place)
    context = error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        return (
            f"The model's manifest is wrong at {field!r}: there is no kind {context['tag']!r}; known are "
            f"{context['expected_tags']}."
        )
    return f"The model's manifest is wrong at {field!r}: {error['msg']}."


def packaged_names() -> list[str]:
    """The models that Eyepiece knows, sorted."""
    return sorted(_packaged_manifests())


def _part(name: str, input_name: str, inputs: Mapping[str, InputSpec]) -> str:
    return name if len(inputs) == 1 else f"{name} of {input_name!r}"


def _packaged_manifests() -> dict[str, Traversable]:
    ours = resources.files("model_store")
    alone = {entry.name.removesuffix(".toml"): entry for entry in (ours / "manifests").iterdir()}
    with_weights = {entry.name: entry / MANIFEST_FILE for entry in (ours / "packaged").iterdir()}
    return alone | {name: entry for name, entry in with_weights.items() if entry.is_file()}
