"""Language models in 4 bits as AutoAWQ and AutoGPTQ publish them: their config, their tensors, what these mean.

Shapes: a matrix [out, in], its inputs in groups of G that share scale and zero. Eight weights lie in one int32, the
first in the lowest bits:

         qweight                             qzeros          scales
AWQ      [in, out / 8], outputs interleaved  [in / G, out / 8]  [in / G, out]    w = (q - zero) · scale
GPTQ     [in / 8, out]                       [in / G, out / 8]  [in / G, out]    w = (q - 8) · scale
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor

from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json, read_shard
from model_store.files.write_safetensors import Shape

PackedMethod = Literal["awq", "gptq"]
# Where the config of a quantised model may stand instead of its config.json.
CONFIG_FILES: Final = ("quantize_config.json", "quant_config.json")
INTEGERS: Final = ("qweight", "qzeros")
# Those for which vLLM has kernels on every device; -1 is one group for each output.
_GROUP_SIZES: Final = (-1, 32, 64, 128)
_PER_INTEGER: Final = 8
# AWQ stores output 8 i + _AWQ_ORDER[k] in the k-th bits of integer i.
_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
_GPTQ_ZERO: Final = 8
_MLP: Final = ("gate", "up", "down")


class _PackedConfig(BaseModel):
    """What decides the weights; a value that vLLM does not serve, or serves otherwise, is an error."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bits: Literal[4] = Field(validation_alias=AliasChoices("bits", "w_bit"))
    group_size: int = Field(validation_alias=AliasChoices("group_size", "q_group_size"))
    lm_head: Literal[False] = False

    @field_validator("group_size")
    @classmethod
    def _is_known(cls, size: int) -> int:
        if size not in _GROUP_SIZES:
            raise ValueError(f"groups are of {', '.join(map(str, _GROUP_SIZES[1:]))}, or -1")
        return size


class AwqConfig(_PackedConfig):
    """AutoAWQ's, in `config.json` or in its own `quant_config.json`."""

    quant_method: Literal["awq"] = "awq"
    zero_point: Literal[True]
    version: Literal["gemm"] = "gemm"

    @field_validator("version", mode="before")
    @classmethod
    def _in_either_case(cls, version: object) -> object:
        return version.lower() if isinstance(version, str) else version


class GptqConfig(_PackedConfig):
    """AutoGPTQ's; `desc_act` (inputs out of their order) is nothing where all inputs are one group."""

    quant_method: Literal["gptq"] = "gptq"
    sym: Literal[True]
    desc_act: bool = False
    checkpoint_format: Literal["gptq", "gptq_v2"] = "gptq"
    dynamic: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _inputs_keep_their_order(self) -> "GptqConfig":
        if self.desc_act and self.group_size != -1:
            raise ValueError("desc_act (act-order) is not served by vLLM 0.32; take a checkpoint without it")
        return self


@dataclass(frozen=True)
class PackedForm:
    """How each matrix of the layers is stored; `stored_zero` is what GPTQ's qzeros must hold everywhere."""

    method: PackedMethod
    group_size: int
    stored_zero: int | None = None

    def stored(self, module: str, shape: Shape) -> dict[str, Shape]:
        """Name and shape of the tensors in which a matrix [out, in] is stored; raises ModelError if it does not fit."""
        out, columns = shape
        group = columns if self.group_size == -1 else self.group_size
        if columns % group or columns % _PER_INTEGER or out % _PER_INTEGER:
            raise ModelError(f"The matrix {module!r} of {out} × {columns} cannot be in {self}; it is another model's.")
        packed = (columns, out // _PER_INTEGER) if self.method == "awq" else (columns // _PER_INTEGER, out)
        groups = columns // group
        return {
            f"{module}.qweight": packed,
            f"{module}.qzeros": (groups, out // _PER_INTEGER),
            f"{module}.scales": (groups, out),
        }

    def unpacked(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The matrix [out, in] in fp32 that `qweight`, `qzeros` and `scales` stand for."""
        q, scales = _bits(tensors["qweight"]), tensors["scales"].float()
        if self.method == "awq":
            weights, zeros = _awq_columns(q), _awq_columns(_bits(tensors["qzeros"]))
        else:
            weights = q.transpose(1, 2).flatten(0, 1)
            zeros = torch.full_like(scales, _GPTQ_ZERO)
        repeats = len(weights) // len(scales)
        return ((weights - zeros.repeat_interleave(repeats, 0)) * scales.repeat_interleave(repeats, 0)).T

    def served_config(self) -> dict[str, Any]:
        """The `quantization_config` that vLLM reads; what stays in 16 bits is said, not left to be found out."""
        common = {"quant_method": self.method, "bits": 4, "group_size": self.group_size, "lm_head": False}
        if self.method == "awq":
            spared = ["lm_head", "mm_projector"]
            return {**common, "zero_point": True, "version": "gemm", "modules_to_not_convert": spared}
        linears = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in _MLP)]
        return {**common, "sym": True, "desc_act": False, "modules_in_block_to_quantize": linears}

    def __str__(self) -> str:
        groups = "one group for each output" if self.group_size == -1 else f"groups of {self.group_size}"
        return f"{self.method}, 4 bits, {groups}"


def packed_form(quantization: Mapping[str, Any]) -> PackedForm:
    """The form that a `quantization_config` names; raises ModelError naming the key that cannot be served."""
    method = quantization.get("quant_method")
    configs: dict[Any, type[AwqConfig | GptqConfig]] = {"awq": AwqConfig, "gptq": GptqConfig}
    if method not in configs:
        raise ModelError(
            f"The language model is quantised by {method!r}; what can be served is AWQ, GPTQ, or the 16-bit model "
            "with --quantize fp8."
        )
    try:
        config = configs[method].model_validate(quantization)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = first["loc"][0] if first["loc"] else "desc_act"
        raise ModelError(f"The quantised model cannot be served because of {key!r}: {first['msg']}.") from error
    if isinstance(config, AwqConfig):
        return PackedForm("awq", config.group_size)
    # The first format stores every zero less one.
    return PackedForm("gptq", config.group_size, _GPTQ_ZERO - (config.checkpoint_format == "gptq"))


def find_packed_form(folder: Path) -> PackedForm | None:
    """How the model in a Hugging Face folder is quantised; None when nothing there says so. Raises ModelError."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    if said := config.get("quantization_config") or config.get("compression_config"):
        return packed_form(said)
    for name, method in zip(CONFIG_FILES, ("gptq", "awq"), strict=True):
        if (folder / name).is_file():
            return packed_form({"quant_method": method, **read_json(folder / name)})
    return None


def read_packed_shard(path: Path, form: PackedForm) -> dict[str, Tensor]:
    """A weight file's tensors but for GPTQ's `g_idx`; raises ModelError where vLLM would take them for others.

    vLLM drops `g_idx` and takes GPTQ's zeros for 8 without a look at either.
    """
    tensors = read_shard(path)
    for name in [name for name in tensors if name.endswith(".g_idx")]:
        _require_order(name, tensors.pop(name), form)
    if form.stored_zero is not None:
        for name in [name for name in tensors if name.endswith(".qzeros")]:
            if not (_bits(tensors[name]) == form.stored_zero).all():
                raise ModelError(f"The zeros {name!r} are not symmetric, as the config says; get the file again.")
    return tensors


def _require_order(name: str, group_of_input: Tensor, form: PackedForm) -> None:
    inputs = torch.arange(len(group_of_input))
    expected = inputs // (len(inputs) if form.group_size == -1 else form.group_size)
    if not torch.equal(group_of_input.long(), expected):
        raise ModelError(f"The inputs of {name!r} are not in their order (act-order), which vLLM 0.32 does not serve.")


def _bits(packed: Tensor) -> Tensor:
    """int32 [a, b] → the eight weights of each [a, b, 8], 0 to 15, lowest bits first."""
    return (packed.unsqueeze(-1) >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15


def _awq_columns(bits: Tensor) -> Tensor:
    """[rows, columns / 8, 8] in AWQ's order → [rows, columns]."""
    return bits[..., torch.tensor(_AWQ_ORDER).argsort()].flatten(1)
