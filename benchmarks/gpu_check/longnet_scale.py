"""Seconds and memory of the slide encoder at 10,000, 50,000 and 100,000 tiles, from features on the host to tokens.

With torch's attention as it is served, with torch's flash kernel in its place, and with flash-attn where there is one.
"""

from collections.abc import Callable
from functools import partial
from typing import Final
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu_check.published_models import drawn_slide, slide_encoder_spec, slide_encoder_weights
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.timing import timed_s
from encoders.slide_encoder import dilated_attention
from encoders.slide_encoder.attention_kernels import attention_with_lse
from encoders.slide_encoder.encode import SlideEncoder
from model_store.errors import ModelError

_TILES: Final = (10_000, 50_000, 100_000)
_SMALL_TILES: Final = (1_200,)
_TILE_PX: Final = 256
SERVED: Final = "as served"

Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def check(setting: Setting) -> Finding:
    """As a worker encodes, in the published dtype; on a CPU in float32."""
    encoders, notes = _encoders(setting)
    numbers: list[Number] = []
    for tiles in _SMALL_TILES if setting.small else _TILES:
        features, coords = (tensor.numpy() for tensor in drawn_slide(tiles, slide_encoder_spec(setting).in_chans))
        for name, (encoder, kernel) in encoders.items():
            encode = partial(encoder.encode_rows, features, coords, _TILE_PX, float(_TILE_PX))
            try:
                with patch.object(dilated_attention, "attention_with_lse", kernel):
                    numbers += _costs(f"{tiles} tiles, {name}", encode, setting)
            except RuntimeError as error:
                if name == SERVED:
                    raise
                notes.append(f"{tiles} tiles, {name}: {str(error).splitlines()[0]}")
    return Finding(numbers=tuple(numbers), notes=tuple(notes))


def _encoders(setting: Setting) -> tuple[dict[str, tuple[SlideEncoder, Kernel]], list[str]]:
    """Encoders with the kernel that torch's attention calls, by name; and what is missing here."""
    spec = slide_encoder_spec(setting, None if setting.on_gpu else "float32")
    weights, device = slide_encoder_weights(setting), torch.device(setting.device)
    torchs = SlideEncoder(spec, weights, device)
    encoders: dict[str, tuple[SlideEncoder, Kernel]] = {SERVED: (torchs, attention_with_lse)}
    if setting.on_gpu:
        encoders["torch's flash kernel"] = (torchs, _flash_of_torch)
    try:
        encoders["flash-attn"] = (SlideEncoder(spec, weights, device, "flash-attn"), attention_with_lse)
    except ModelError as error:
        return encoders, [f"without flash-attn: {error}"]
    return encoders, []


def _costs(name: str, encode: Callable[[], object], setting: Setting) -> list[Number]:
    encode()  # memory is got, kernels are chosen
    if not setting.on_gpu:
        return [Number(name=name, value=timed_s(encode, setting), unit="s")]
    torch.cuda.reset_peak_memory_stats(setting.device)
    seconds = min(timed_s(encode, setting) for _ in range(2))
    peak = torch.cuda.max_memory_allocated(setting.device)
    return [Number(name=name, value=seconds, unit="s"), Number(name=f"{name}, memory", value=peak / 1e9, unit="GB")]


def _flash_of_torch(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)
    return out, lse
