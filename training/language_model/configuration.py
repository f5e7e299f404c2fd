"""A language model's size and the last stage of its training, read from a file, and the model that it describes."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor

from model_store.convert.tensor_names import LLAVA
from model_store.files.checkpoint_files import read_shard, shards_of
from training.errors import CheckpointMismatch, TrainingError
from training.language_model.low_rank import LowRank, add_low_rank
from training.language_model.slide_language_model import SlideLanguageModel
from training.loop.settings import LoopSettings
from training.write_model import LlamaShape

CONFIGURATIONS: Final = Path(__file__).parent / "configurations"
_DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32}
_PROJECTOR: Final = "model.mm_projector."


class LanguageModelConfiguration(BaseModel):
    """See configurations/vicuna-7b.toml, which explains each; keys that are not known are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    llama: LlamaShape
    projector_width: PositiveInt
    max_positions: PositiveInt
    base_dtype: Literal["bf16", "fp32"] = "fp32"
    gradient_checkpointing: bool = False
    low_rank: LowRank | None = None
    batch_per_process: PositiveInt
    instruct: LoopSettings

    def step_batch(self, processes: int) -> int:
        """Samples that one optimiser step sees."""
        return self.batch_per_process * self.instruct.accumulate * processes


def read_configuration(path: Path) -> LanguageModelConfiguration:
    """The file's content; raises TrainingError that names the first key at fault."""
    try:
        return LanguageModelConfiguration.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{path.name} is wrong at {key!r}: {first['msg']}.") from error


def new_language_model(configuration: LanguageModelConfiguration, base: Path | None = None) -> SlideLanguageModel:
    """The model with its LoRA pairs, on top of the published Llama or LLaVA in the folder `base` or of random weights.

    Raises:
        ModelError: the folder holds no checkpoint.
        CheckpointMismatch: it holds another one.
    """
    with _default_dtype(_DTYPES[configuration.base_dtype]):
        model = SlideLanguageModel(configuration.llama, configuration.projector_width, scaffold=False)
    model.llama.config.max_position_embeddings = configuration.max_positions
    if base is not None:
        load_published(model, base)
    if configuration.low_rank is not None:
        add_low_rank(model, configuration.low_rank)
    if configuration.gradient_checkpointing:
        # Reentrant checkpointing needs an input with a gradient, which a frozen embedding does not give.
        model.llama.activation_checkpointing_enable({"use_reentrant": False})
    return model


def load_published(model: SlideLanguageModel, folder: Path) -> None:
    """Sets the Llama, and the projector if the folder has one, to published weights; LoRA is added afterwards.

    Raises:
        ModelError: the folder holds no checkpoint.
        CheckpointMismatch: a tensor is missing, left over or of another shape.
    """
    shards = (read_shard(path) for path in shards_of(folder))
    named = ((LLAVA.served_name(published), tensor) for shard in shards for published, tensor in shard.items())
    found = {name: tensor for name, tensor in named if name is not None}
    wanted: dict[str, Tensor] = dict(model.llama.named_parameters())
    # A LLaVA brings a projector of its own, a plain Llama none.
    if any(name.startswith(_PROJECTOR) for name in found):
        wanted |= {f"{_PROJECTOR}{name}": tensor for name, tensor in model.mm_projector.named_parameters()}
    _require_same_shapes(wanted, found, folder)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def _require_same_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: Path) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise CheckpointMismatch(f"{folder} lacks {name}; get the folder again, or use its own configuration.")
        if name not in wanted or wanted[name].shape != found[name].shape:
            raise CheckpointMismatch(f"{folder} has {name} {list(found[name].shape)}: the configuration is another's.")


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
