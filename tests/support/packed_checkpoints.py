"""Language models quantised to 4 bits, laid out as AutoAWQ and AutoGPTQ publish them, and what they stand for.

Rounding, packing and unpacking are written out here once more, bit by bit, so that they share nothing with the code
that is tested.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from toy_checkpoint import LINEARS, Tensors, Toy

Method = Literal["awq", "gptq"]
# AWQ's order of eight outputs within 32 bits, lowest bits first.
INTERLEAVED = (0, 2, 4, 6, 1, 3, 5, 7)
# What AWQ scales together, with the norm before it.
SCALED = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
CONFIGS: dict[Method, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm", "modules_to_not_convert": None},
    "gptq": {"quant_method": "gptq", "bits": 4, "sym": True, "desc_act": False, "damp_percent": 0.1},
}


@dataclass(frozen=True)
class Packed:
    """`stored` under the published names; `meant` the same model with plain matrices, in fp32."""

    method: Method
    group: int
    stored: Tensors
    meant: Tensors

    @property
    def config(self) -> dict[str, Any]:
        return {**CONFIGS[self.method], "group_size": self.group}


def packed_model(tensors: Tensors, method: Method, group: int = 32) -> Packed:
    """Every matrix of the layers in 4 bits; the rest as it is, in fp16, but for the norms that AWQ scales."""
    stored = {name: tensor.half() for name, tensor in tensors.items()}
    if method == "awq":
        stored = _smoothed(stored)
    meant = {name: tensor.float() for name, tensor in stored.items()}
    for layer in range(layers_of(tensors)):
        for linear in LINEARS:
            module = f"model.layers.{layer}.{linear}"
            weight = stored.pop(f"{module}.weight").float().numpy().T  # [in, out]
            parts, meaning = _packed_matrix(weight, method, group)
            stored |= {f"{module}.{name}": torch.from_numpy(part) for name, part in parts.items()}
            meant[f"{module}.weight"] = torch.from_numpy(np.ascontiguousarray(meaning.T))
    return Packed(method, group, stored, meant)


def write_packed(toy: Toy, packed: Packed, part: str, separate_config: str = "", **config: Any) -> None:
    """One safetensors file, as published, with the config in `config.json` or in a file of its own."""
    folder = toy.folder / part
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("pytorch_model*"), *folder.glob("model*.safetensors")]:
        old.unlink()
    save_file({name: tensor.contiguous() for name, tensor in packed.stored.items()}, folder / "model.safetensors")
    said = {**packed.config, **config}
    llama = {**toy.config, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    toy.write_json(f"{part}/config.json", llama if separate_config else {**llama, "quantization_config": said})
    if separate_config:
        toy.write_json(f"{part}/{separate_config}", said)
    toy.write_tokenizer(part)


def layers_of(tensors: Tensors) -> int:
    return sum(name.endswith(".input_layernorm.weight") for name in tensors)


def language_model_of(toy: Toy, tensors: Tensors) -> Tensors:
    """Without a projector, as a published Vicuna."""
    return {name: tensor for name, tensor in tensors.items() if name not in toy.projector}


def set_bits(integers: NDArray[np.int32], place: int, value: int) -> None:
    """Puts `value`, 0 to 15, into the `place`-th four bits of the first integer."""
    first = integers.reshape(-1).view(np.uint32)
    first[0] = (int(first[0]) & ~(15 << 4 * place) & 0xFFFFFFFF) | value << 4 * place


def _smoothed(tensors: Tensors) -> Tensors:
    """AWQ's factors: each input of a matrix times s, the norm before it divided by s."""
    generator, smoothed = torch.Generator().manual_seed(7), dict(tensors)
    for layer in range(layers_of(tensors)):
        for norm, linears in SCALED.items():
            name = f"model.layers.{layer}.{norm}.weight"
            factors = (torch.rand(tensors[name].shape, generator=generator) + 0.5).half()
            smoothed[name] = (tensors[name].float() / factors).half()
            for linear in linears:
                weight = f"model.layers.{layer}.{linear}.weight"
                smoothed[weight] = (tensors[weight].float() * factors).half()
    return smoothed


def _packed_matrix(
    weight: NDArray[np.float32], method: Method, group: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    inputs, outputs = weight.shape
    group = inputs if group == -1 else group
    groups = weight.reshape(inputs // group, group, outputs)
    if method == "awq":
        low, high = np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0)
        scales = np.maximum((high - low) / 15, 1e-6).astype(np.float16)
        zeros = np.clip(np.round(-low / scales.astype(np.float32)), 0, 15)
    else:
        scales = np.maximum(np.abs(groups).max(1) / 7, 1e-6).astype(np.float16)
        zeros = np.full(scales.shape, 8.0)
    step = scales.astype(np.float32)[:, None]
    q = np.clip(np.round(groups / step) + zeros[:, None], 0, 15)
    meaning = ((q - zeros[:, None]) * step).reshape(inputs, outputs).astype(np.float32)
    integers = q.reshape(inputs, outputs).astype(np.uint32)
    if method == "awq":
        parts = {"qweight": _interleaved(integers), "qzeros": _interleaved(zeros.astype(np.uint32)), "scales": scales}
        return parts, meaning
    in_order = (np.arange(inputs) // group).astype(np.int32)
    stored_zeros = _joined(np.ascontiguousarray(zeros.astype(np.uint32).T) - np.uint32(1)).T
    parts = {"qweight": _joined(integers), "qzeros": np.ascontiguousarray(stored_zeros), "scales": scales}
    return {**parts, "g_idx": in_order}, meaning


def _interleaved(values: NDArray[np.uint32]) -> NDArray[np.int32]:
    """[rows, columns] → [rows, columns / 8]."""
    packed = np.zeros((len(values), values.shape[1] // 8), np.uint32)
    for place, column in enumerate(INTERLEAVED):
        packed |= values[:, column::8] << np.uint32(4 * place)
    return packed.view(np.int32)


def _joined(values: NDArray[np.uint32]) -> NDArray[np.int32]:
    """[rows, columns] → [rows / 8, columns]."""
    packed = np.zeros((len(values) // 8, values.shape[1]), np.uint32)
    for place in range(8):
        packed |= values[place::8] << np.uint32(4 * place)
    return packed.view(np.int32)


def write_beside(toy: Toy, packed: Packed) -> Path:
    """As the part `llm_quantized`."""
    write_packed(toy, packed, "llm_quantized")
    return toy.folder / "llm_quantized"
