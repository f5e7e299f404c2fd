"""Weights in 8 bits: e4m3 with a scale for each output row, in the form that vLLM knows as `compressed-tensors`.

Activations are rounded to 8 bits while it runs, with a scale for each token, so no data is needed to make it.
"""

from typing import Any, Final

import torch
from torch import Tensor

SCALE_SUFFIX: Final = "_scale"
_LARGEST: Final = 448.0  # of float8_e4m3fn
# A row of zeros has this scale; dividing by it stays finite.
_SMALLEST_SCALE: Final = torch.finfo(torch.float32).tiny


def float8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] in fp32 → e4m3 [out, in], nearest with ties to even, and fp32 scales [out, 1].

    Their product is the weight to within 1/16 of it, or 2^-10 scales where that is more.
    """
    scale = (weight.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp_min(_SMALLEST_SCALE)
    # A quotient may round to just above the largest value, which the cast alone would make NaN.
    return (weight / scale).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scale


def float8_config() -> dict[str, Any]:
    """The `quantization_config` of a model whose layers' matrices are stored so, and nothing else is."""
    numbers = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**numbers, "strategy": "channel", "dynamic": False},
        "input_activations": {**numbers, "strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        # As patterns: vLLM compares plain names with the whole path of a module.
        "ignore": ["re:.*lm_head$", r"re:.*mm_projector\..*"],
    }
