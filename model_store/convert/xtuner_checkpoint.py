"""The layouts in which SlideChat's trainer (xtuner) leaves a checkpoint, told apart by their files.

trainer     one file of the whole module, or several with an index: llm.*, projector.model.*, LongNet_encoder.*. After
            the first stage of training llm.* is not in it: the language model is the base's
folder      a Hugging Face folder of the language model, or llm_adapter/ for the base's; projector/ and LongNet_encoder/

A trainer's file says nothing of sizes and tokens, so config and tokenizer are the base's, Qwen2.5's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from torch import Tensor

from model_store.convert.convert_weights import Shard
from model_store.convert.llava_checkpoint import TOKENIZER_FILES
from model_store.convert.merge_lora import CONFIG_FILE as ADAPTER_CONFIG
from model_store.convert.merge_lora import adapter_weights
from model_store.errors import ModelError
from model_store.files.checkpoint_files import existing_file, only_tensors, read_pickle, read_shard, shards_of

Layout = Literal["trainer", "folder"]
LLM: Final = "llm."
_PARTS: Final = {"projector": "projector.", "LongNet_encoder": "LongNet_encoder."}
_ADAPTER: Final = "llm_adapter"
# DeepSpeed keeps a folder for each checkpoint; its other files are the optimiser's.
_DEEPSPEED_FILE: Final = "mp_rank_00_model_states.pt"
_TRAINER_SUFFIXES: Final = (".pth", ".pt", ".bin", ".safetensors")
# Where a trainer's file holds its tensors, when not at the top: mmengine's word, DeepSpeed's.
_ENTRIES: Final = ("state_dict", "module")


@dataclass(frozen=True)
class WeightFile:
    """A file of weights; its tensors get `prefix` before their names, as the trainer has them."""

    path: Path
    prefix: str = ""

    def shard(self) -> Shard:
        """To be planned and read."""
        return Shard(self.path.name, self.tensors)

    def tensors(self) -> dict[str, Tensor]:
        """By the trainer's names; raises ModelError that names the file."""
        return {self.prefix + name: tensor for name, tensor in _tensors(self.path).items()}


@dataclass(frozen=True)
class XtunerCheckpoint:
    """Where the parts are. `settings` holds the language model's config.json and tokenizer; `adapter` is to be merged
    into `base` weights."""

    layout: Layout
    folder: Path
    settings: Path
    weights: Sequence[WeightFile]
    base: Sequence[WeightFile]
    adapter: Path | None = None

    def files(self) -> list[Path]:
        """What a conversion reads of the checkpoint's own folder."""
        own = [file.path for file in self.weights]
        if self.adapter is not None:
            own += [self.adapter / ADAPTER_CONFIG, adapter_weights(self.adapter)]
        return own + self.settings_files() if self.settings == self.folder else own

    def base_files(self) -> list[Path]:
        """What it reads of the base."""
        weights = [file.path for file in self.base]
        return weights if self.settings == self.folder else weights + self.settings_files()

    def settings_files(self) -> list[Path]:
        """Config and tokenizer; raises ModelError where a file is missing."""
        there = [name for name in TOKENIZER_FILES if (self.settings / name).is_file()]
        return [existing_file(self.settings, name) for name in dict.fromkeys(("config.json", "tokenizer.json", *there))]


def find_xtuner_checkpoint(folder: Path, base: Path) -> XtunerCheckpoint:
    """The checkpoint in `folder`; raises ModelError when its files say none, or two."""
    if any((folder / name).is_dir() for name in (*_PARTS, _ADAPTER)):
        return _folder(folder, base)
    files = [WeightFile(path) for path in _trainers_files(folder)]
    names = [name for file in files for name in file.tensors()]
    if any(".lora_A." in name or ".lora_B." in name for name in names):
        raise ModelError(
            "The checkpoint holds LoRA factors without their scale; write the checkpoint with xtuner's `pth_to_hf`, "
            f"which makes {_ADAPTER}/ with it, or merge them."
        )
    has_llm = any(name.removeprefix("module.").startswith(LLM) for name in names)
    return XtunerCheckpoint("trainer", folder, _there(base), files, [] if has_llm else _of_base(base))


def _folder(folder: Path, base: Path) -> XtunerCheckpoint:
    parts = [WeightFile(path, prefix) for name, prefix in _PARTS.items() for path in _shards(folder, name)]
    if (folder / _ADAPTER).is_dir():
        if (folder / "config.json").is_file():
            raise ModelError(f"The checkpoint holds a whole language model and {_ADAPTER}/; remove one of them.")
        return XtunerCheckpoint("folder", folder, _there(base), parts, _of_base(base), folder / _ADAPTER)
    if not (folder / "config.json").is_file():
        return XtunerCheckpoint("folder", folder, _there(base), parts, _of_base(base))
    own = [WeightFile(path, LLM) for path in shards_of(folder)]
    return XtunerCheckpoint("folder", folder, folder, [*own, *parts], [])


def _shards(folder: Path, part: str) -> list[Path]:
    if not (folder / part).is_dir():
        # xtuner's own `pth_to_hf` stops before it has written LongNet_encoder/.
        raise ModelError(
            f"The checkpoint has no {part}/; convert the trainer's own file (.pth) instead, which has all."
        )
    return shards_of(folder / part)


def _of_base(base: Path) -> list[WeightFile]:
    return [WeightFile(path, LLM) for path in shards_of(_there(base))]


def _there(base: Path) -> Path:
    if not base.is_dir():
        raise ModelError(
            f"There is no folder {base.name}/ with the language model's config.json and tokenizer; fetch it."
        )
    return base


def _trainers_files(folder: Path) -> list[Path]:
    if any(folder.glob("*.index.json")):
        return shards_of(folder)
    deepspeed = sorted(folder.rglob(_DEEPSPEED_FILE))
    found = deepspeed or sorted(path for path in folder.iterdir() if path.suffix in _TRAINER_SUFFIXES)
    if not found:
        raise ModelError(f"There is no checkpoint of SlideChat's trainer in {folder.name}/ (.pth); get its files.")
    if len(found) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found)
        raise ModelError(f"{folder.name}/ holds several checkpoints ({names}); leave the one that is to be served.")
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_shard(path)
    content = read_pickle(path)
    for name in _ENTRIES:
        if isinstance(content.get(name), Mapping):
            return only_tensors(content[name], path)
    return only_tensors(content, path)
