"""The vLLM plugin's projector against Hugging Face's own of LLaVA, with the same weights, at the published size."""

from typing import Any, Final

import torch
from torch import Tensor, nn

import encoders.tile_encoder.torchvision_ops  # noqa: F401 - transformers imports torchvision
from benchmarks.gpu_check.plugin import plugin_module
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting

_SLIDE_TOKENS, _WIDTH, _PROJECTOR_WIDTH, _HIDDEN = 576, 768, 1024, 4096
# Largest difference relative to the largest value. float32: sums of 4096 products in another order, 2^-24 each. In 16
# bits slide, weights, hidden layer and result are rounded, by 2^-11 in float16 and 2^-8 in bfloat16: four of those.
_MOST: Final = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def check(setting: Setting) -> Finding:
    """Slide tokens of the stored width, so that zero-padding is part of it."""
    torch.manual_seed(0)
    theirs, slide = _theirs(), torch.randn(_SLIDE_TOKENS, _WIDTH)
    with torch.inference_mode():
        expected = theirs(nn.functional.pad(slide, (0, _PROJECTOR_WIDTH - _WIDTH)))
        numbers = [
            Number(
                name=f"{str(dtype).removeprefix('torch.')}, largest difference",
                value=_difference(_ours(theirs, setting, dtype), slide, expected),
                at_most=most,
                source="rounding of the dtype",
            )
            for dtype, most in _MOST.items()
        ]
    return Finding(numbers=tuple(numbers))


def _theirs() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    vision = CLIPVisionConfig(hidden_size=_PROJECTOR_WIDTH, num_attention_heads=16)
    text = LlamaConfig(hidden_size=_HIDDEN)
    return LlavaMultiModalProjector(LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=-2)).eval()


def _ours(theirs: Any, setting: Setting, dtype: torch.dtype) -> nn.Module:
    projector: nn.Module = plugin_module("projector").SlideProjector(_PROJECTOR_WIDTH, _HIDDEN)
    renamed = {"linear_1": "0", "linear_2": "2"}
    state = {f"{renamed[name.split('.')[0]]}.{name.split('.')[1]}": t for name, t in theirs.state_dict().items()}
    projector.load_state_dict(state)
    return projector.to(setting.device, dtype)


def _difference(projector: nn.Module, slide: Tensor, expected: Tensor) -> float:
    weight = next(projector.parameters())
    projected: Tensor = projector(slide.to(weight.device, weight.dtype))
    return float((projected.float().cpu() - expected).abs().max() / expected.abs().max())
