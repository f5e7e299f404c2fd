"""Which quantised language model a conversion takes, and whether it was made from the checkpoint that it is for.

AWQ and GPTQ need data to be made, so they come from elsewhere: the checkpoint (or the base of a projector) is itself
quantised, or the quantised form of the language model lies beside it in `llm_quantized/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model_store.convert.llava_checkpoint import LlavaCheckpoint
from model_store.convert.packed_weights import CONFIG_FILES, PackedForm, find_packed_form, read_packed_shard
from model_store.convert.tensor_names import LLAVA
from model_store.errors import ModelError
from model_store.files.checkpoint_files import shards_of
from model_store.files.source_digests import Say
from model_store.manifest import Quantization

FOLDER: Final = "llm_quantized"
# Four bits in groups of 128 leave 0.1 to 0.2 of a trained matrix' norm; those of two models differ by more than all.
_FARTHEST: Final = 0.5
# 1 where the checkpoint was quantised, 0 where its base was; rounding moves it by hundredths at most.
_FINE_TUNED: Final = 0.5

# A tensor by its served name; None when there is none.
FindTensor = Callable[[str], Tensor | None]


@dataclass(frozen=True)
class PackedModel:
    """A quantised language model; `apart` says that it lies beside the checkpoint, not in it."""

    folder: Path
    form: PackedForm
    shards: list[Path]
    apart: bool

    def files(self) -> list[Path]:
        """What a conversion reads of the folder."""
        names = [name for name in ("config.json", *CONFIG_FILES) if (self.folder / name).is_file()]
        return [*self.shards, *(self.folder / name for name in names)]


def find_packed_model(checkpoint: LlavaCheckpoint, beside: Path, quantize: Quantization) -> PackedModel | None:
    """The quantised model to serve, None for "none" and "fp8"; `beside` need not exist.

    Raises ModelError when what was asked for is not there, or what is there was not asked for.
    """
    own = find_packed_form(checkpoint.base)
    if quantize in ("none", "fp8"):
        if own is not None:
            raise ModelError(
                f"The language model in {checkpoint.base.name}/ is quantised already ({own}): convert it with "
                f"--quantize {own.method}, or get the 16-bit one."
            )
        return None
    apart = beside.is_dir() and beside != checkpoint.base
    if apart and own is not None:
        raise ModelError(f"{checkpoint.base.name}/ and {FOLDER}/ both hold a quantised model; remove one of them.")
    if checkpoint.layout == "lora" and not apart:
        raise ModelError(
            "An adapter cannot be folded into a quantised base: quantise the merged model and put it into "
            f"{FOLDER}/, with the 16-bit base in llm_base/."
        )
    folder, form = (beside, find_packed_form(beside)) if apart else (checkpoint.base, own)
    if form is None:
        raise ModelError(
            f"The language model in {folder.name}/ is not quantised: put it, quantised, into {FOLDER}/, or use "
            "--quantize fp8, which needs no more than the 16-bit weights."
        )
    if form.method != quantize:
        raise ModelError(f"The language model in {folder.name}/ is quantised as {form.method}, not as {quantize}.")
    return PackedModel(folder, form, shards_of(folder), apart)


def check_origin(packed: PackedModel, layers: int, weight: FindTensor, base: FindTensor, say: Say) -> None:
    """Compares matrices of the first and last layer with the checkpoint's, and with those it was fine-tuned from.

    AWQ moves factors between a matrix and the norm before it, so their product is compared. Raises ModelError when
    the quantised model was made from another one; says what could not be told.
    """
    find = _finder(packed)
    coefficients = []
    for layer in sorted({0, layers - 1}):
        module, norm = f"model.layers.{layer}.self_attn.q_proj", f"model.layers.{layer}.input_layernorm.weight"
        names = ("qweight", "qzeros", "scales")
        parts = {name: _needed(find(f"{module}.{name}"), f"{module}.{name}") for name in names}
        quantised = packed.form.unpacked(parts) * _needed(find(norm), norm).float()
        matrix = _needed(weight(f"{module}.weight"), f"{module}.weight")
        wanted = matrix.float() * _needed(weight(norm), norm).float()
        if quantised.shape != wanted.shape or _norm(quantised - wanted) > _FARTHEST * _norm(wanted):
            raise ModelError(
                f"The quantised language model's {module} is not the checkpoint's: it was made from another model."
            )
        before, norm_before = base(f"{module}.weight"), base(norm)
        if before is None or norm_before is None:
            continue
        origin = before.float() * norm_before.float()
        step = wanted - origin
        if _norm(step) > 0:
            coefficients.append(float(((quantised - origin) * step).sum() / (step * step).sum()))
    if coefficients and min(coefficients) < _FINE_TUNED:
        raise ModelError(
            "The quantised language model was made from the base, without what the checkpoint learned: quantise the "
            "merged model instead."
        )
    if coefficients:
        say(f"{FOLDER}: it was made from this checkpoint, not from its base (agreement {min(coefficients):.2f} of 1)")
    else:
        say(
            f"{FOLDER}: it is near this checkpoint; whether it was made from it or from a relative cannot be told here "
            "(what the checkpoint was fine-tuned from, in llm_base/, would tell)"
        )


def _finder(packed: PackedModel) -> FindTensor:
    return find_tensor(packed.shards, lambda path: read_packed_shard(path, packed.form))


def find_tensor(shards: Sequence[Path], read: Callable[[Path], dict[str, Tensor]]) -> FindTensor:
    """Looks a tensor up by its served name in weight files."""
    places = {LLAVA.served_name(name): (path, name) for path in shards for name in read(path)}

    def find(served: str) -> Tensor | None:
        if served not in places:
            return None
        path, name = places[served]
        return read(path)[name]

    return find


def _needed(tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise ModelError(f"The language model lacks the tensor {name!r}; a file is missing or another model's.")
    return tensor


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix))
