"""The folder that MLLM-HWSI's training exports: a Hugging Face language model with its projector beside it.

config.json, model*.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja
projector_config.json, vl_projector.pt
adapter_config.json, adapter_model.safetensors    where the LoRA of the last stage was not merged
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.chat_template import qwen_slide_template
from model_store.contracts.fields import Positive
from model_store.contracts.hierarchical import LevelsProjectorSpec
from model_store.convert.llava_checkpoint import TOKENIZER_FILES
from model_store.convert.merge_lora import CONFIG_FILE as ADAPTER_CONFIG
from model_store.convert.merge_lora import adapter_weights
from model_store.errors import ModelError
from model_store.files.checkpoint_files import existing_file, read_json, shards_of

PROJECTOR_CONFIG: Final = "projector_config.json"
TEMPLATE_FILE: Final = "chat_template.jinja"
# In the order in which the public code looks for them.
_PROJECTOR_FILES: Final = ("vl_projector.pt", "best_vl_projector.pt")
_WEIGHT_SUFFIXES: Final = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


class ProjectorConfig(BaseModel):
    """What the exported folder says of its projector; `dropout` plays no part in answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    llm_dim: Positive
    hidden_dim: Positive
    num_query_tokens: Positive
    use_layernorm: Literal[True] = True
    projector_type: Literal["mlp"] = "mlp"


@dataclass(frozen=True)
class HwsiCheckpoint:
    """Where the parts of the exported folder are; `adapter` is the folder itself where there is a LoRA in it."""

    folder: Path
    shards: list[Path]
    projector: Path
    adapter: Path | None

    def files(self) -> list[Path]:
        """What a conversion reads."""
        there = [TEMPLATE_FILE, *TOKENIZER_FILES]
        names = ["config.json", PROJECTOR_CONFIG, *(name for name in there if (self.folder / name).is_file())]
        lora = [] if self.adapter is None else [self.folder / ADAPTER_CONFIG, adapter_weights(self.folder)]
        return [*self.shards, self.projector, *(existing_file(self.folder, name) for name in names), *lora]


def find_hwsi_checkpoint(folder: Path) -> HwsiCheckpoint:
    """The parts in `folder`; raises ModelError when one is missing."""
    projector = next((folder / name for name in _PROJECTOR_FILES if (folder / name).is_file()), None)
    if projector is None:
        raise ModelError(f"There is no projector in {folder.name}/ ({_PROJECTOR_FILES[0]}); get the file.")
    existing_file(folder, PROJECTOR_CONFIG)
    adapter = folder if (folder / ADAPTER_CONFIG).is_file() else None
    return HwsiCheckpoint(folder, shards_of(folder), projector, adapter)


def check_projector_config(folder: Path, spec: LevelsProjectorSpec) -> None:
    """Raises ModelError when the folder's projector is not of the manifest's sizes, or of another kind."""
    try:
        said = ProjectorConfig.model_validate(read_json(folder / PROJECTOR_CONFIG))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ModelError(f"{PROJECTOR_CONFIG} is wrong at {first['loc'][0]!r}: {first['msg']}.") from error
    pairs = {
        "llm_dim": (said.llm_dim, spec.llm_dim),
        "hidden_dim": (said.hidden_dim, spec.hidden_dim),
        "num_query_tokens": (said.num_query_tokens, spec.query_tokens),
    }
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            raise ModelError(
                f"{PROJECTOR_CONFIG} says {name} {found}, the manifest's slide_stage.projector {wanted}: use the "
                "manifest of this checkpoint."
            )


def check_chat_template(folder: Path, system: str) -> None:
    """Raises ModelError when the folder's own template writes a chat otherwise than the one that will be served.

    The public code writes its prompts by the tokenizer's template, so another one would be another model's prompt.
    """
    published = _published_template(folder)
    if published is None:
        raise ModelError(f"There is no chat template in {folder.name}/ ({TEMPLATE_FILE}); get the file.")
    turns = [("user", "Which grade?"), ("assistant", "Two."), ("user", "Why?\nBriefly.")]
    for count in (1, 3):
        chat = [{"role": role, "content": text} for role, text in turns[:count]]
        own = _rendered(qwen_slide_template(system), chat)
        if _rendered(published, [{"role": "system", "content": system}, *chat]) != own:
            raise ModelError(
                f"{folder.name}/{TEMPLATE_FILE} writes a chat in another way than the manifest's prompt of kind "
                "'chatml'; it is another language model's."
            )


def only_weights_file(folder: Path) -> Path:
    """The one file of weights in a part's folder, whatever its publishers called it; raises ModelError."""
    found = sorted(path for path in folder.iterdir() if path.suffix in _WEIGHT_SUFFIXES)
    if not found:
        raise ModelError(f"There are no weights in {folder.name}/; put the published file there.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ModelError(f"{folder.name}/ holds several files of weights ({names}); leave the one that is to be used.")
    return found[0]


def _published_template(folder: Path) -> str | None:
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text("utf-8")
    said = read_json(folder / "tokenizer_config.json").get("chat_template")
    return said if isinstance(said, str) else None


def _rendered(template: str, messages: list[dict[str, str]]) -> str:
    """As transformers renders it, in a sandbox: the template came with the weights."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    names: Mapping[str, Any] = {"messages": messages, "add_generation_prompt": True, "tools": None}
    try:
        return environment.from_string(template).render(**names)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise ModelError(f"{TEMPLATE_FILE} cannot be read as a chat template; get the file again.") from error
