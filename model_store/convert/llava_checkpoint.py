"""The three layouts in which the reference's training code leaves a checkpoint, told apart by their files.

merged      weights of the whole model
lora        adapter_config.json, adapter_model.*, non_lora_trainables.bin, on top of a base
projector   mm_projector.bin, on top of a base
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from model_store.convert.merge_lora import CONFIG_FILE, adapter_weights
from model_store.errors import ModelError
from model_store.files.checkpoint_files import existing_file, shards_of

Layout = Literal["merged", "lora", "projector"]
# The base's tokenizer is used with an adapter or projector, as the reference does.
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_OVERLAY_FILES: Final[dict[Layout, str]] = {"lora": "non_lora_trainables.bin", "projector": "mm_projector.bin"}


@dataclass(frozen=True)
class LlavaCheckpoint:
    """Where the parts of a checkpoint are; `overlay` holds tensors that take the place of the shards'."""

    layout: Layout
    folder: Path
    base: Path
    shards: list[Path]

    @property
    def overlay(self) -> Path | None:
        """The file with the projector where that is not among the shards."""
        name = _OVERLAY_FILES.get(self.layout)
        return self.folder / name if name else None

    def files_in(self, folder: Path) -> list[Path]:
        """The files that a conversion reads in `folder`, which is the checkpoint's or the base's."""
        names = [*(shard.name for shard in self.shards if shard.parent == folder)]
        if folder == self.folder:
            names += ["config.json", *([self.overlay.name] if self.overlay else [])]
            names += [CONFIG_FILE, adapter_weights(folder).name] if self.layout == "lora" else []
        if folder == self.base:
            names += [name for name in TOKENIZER_FILES if (folder / name).is_file()]
        return [existing_file(folder, name) for name in names]


def layout_of(folder: Path) -> Layout:
    """The layout of a checkpoint folder; raises ModelError when its files say none, or two."""
    has_weights = _has_weights(folder)
    has_adapter = (folder / CONFIG_FILE).is_file()
    if has_weights and has_adapter:
        raise ModelError(
            f"The checkpoint holds both merged weights and an adapter; remove one of them ({CONFIG_FILE})."
        )
    if has_weights:
        return "merged"  # published merged checkpoints may carry the mm_projector.bin of an earlier stage, too
    if has_adapter:
        return "lora"
    if (folder / _OVERLAY_FILES["projector"]).is_file():
        return "projector"
    raise ModelError(
        "The checkpoint has none of the layouts merged (model.safetensors or pytorch_model.bin, or their index), "
        f"LoRA ({CONFIG_FILE}) and projector (mm_projector.bin); get its files."
    )


def find_checkpoint(folder: Path, base: Path) -> LlavaCheckpoint:
    """The checkpoint in `folder`, with the model in `base` under it where it needs one; raises ModelError."""
    layout = layout_of(folder)
    if layout == "merged":
        return LlavaCheckpoint(layout, folder, folder, shards_of(folder))
    existing_file(folder, _OVERLAY_FILES[layout])
    if not base.is_dir():
        raise ModelError(f"The checkpoint is a {layout} on top of a base model, which is missing; fetch llm_base too.")
    return LlavaCheckpoint(layout, folder, base, shards_of(base))


def _has_weights(folder: Path) -> bool:
    try:
        return bool(shards_of(folder))
    except ModelError:
        return any(folder.glob("*.index.json"))
