"""Plain matrices from a served folder's quantised ones, for `reference_answer`; written out apart from our own code."""

import torch
from torch import Tensor, nn

# Which of eight outputs lies in which four bits of AWQ's integers.
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


def plain_weights(weights: dict[str, Tensor], quantization: dict) -> dict[str, Tensor]:
    """The same names as without quantisation, in fp32."""
    plain = {name: tensor.float() for name, tensor in weights.items() if not _belongs_to_a_matrix(name)}
    if quantization.get("quant_method") == "compressed-tensors":
        for name in [name for name in weights if name.endswith("_scale")]:
            matrix = name.removesuffix("_scale")
            plain[matrix] = weights[matrix].float() * weights[name]
    for name in [name for name in weights if name.endswith(".qweight")]:
        module = name.removesuffix(".qweight")
        plain[f"{module}.weight"] = _four_bits(
            *(weights[f"{module}.{part}"] for part in ("qweight", "qzeros", "scales")), quantization
        )
    return plain


class EightBitInputs(nn.Linear):
    """Its inputs are rounded to e4m3, each row scaled so that its largest is 448, before they are multiplied."""

    def forward(self, rows: Tensor) -> Tensor:
        """[.., in] → [.., out]."""
        scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 448
        rounded = (rows / scale).to(torch.float8_e4m3fn).to(rows.dtype)
        return super().forward(rounded) * scale


def round_inputs(model: nn.Module) -> None:
    """Makes every matrix of the layers take its inputs in 8 bits, as W8A8 does."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".layers." in name:
            module.__class__ = EightBitInputs


def _belongs_to_a_matrix(name: str) -> bool:
    return name.endswith((".qweight", ".qzeros", ".scales", "_scale"))


def _four_bits(qweight: Tensor, qzeros: Tensor, scales: Tensor, quantization: dict) -> Tensor:
    inputs, outputs = (
        (len(qweight), scales.shape[1])
        if quantization["quant_method"] == "awq"
        else (len(qweight) * 8, scales.shape[1])
    )
    weight = torch.empty(inputs, outputs)
    zeros = torch.full(scales.shape, 8.0)
    for number in range(8):
        if quantization["quant_method"] == "awq":
            bits = 4 * AWQ_PLACES[number]
            weight[:, number::8] = ((qweight >> bits) & 15).float()
            zeros[:, number::8] = ((qzeros >> bits) & 15).float()
        else:
            weight[number::8] = ((qweight >> 4 * number) & 15).float()
    group = inputs // len(scales)
    for start in range(0, inputs, group):
        rows = slice(start, start + group)
        weight[rows] = (weight[rows] - zeros[start // group]) * scales[start // group].float()
    return weight.T.contiguous()
