"""Tiles of four slides through the batcher: do copies run beside kernels, how long does the device idle, and on what
does it spend its time?
"""

import threading
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_check.device_trace import device_spans, idle_share, overlapped_share, shares
from benchmarks.gpu_check.gap import COPIES_BESIDE, DEVICE_IDLE, time_in
from benchmarks.gpu_check.published_models import tile_encoder_spec, tile_encoder_weights
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.compile_model import keep_compiled_code_in
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles

_SLIDES: Final = 4
_BATCHES, _SMALL_BATCHES = 10, 1  # a slide
# Tiles lie ready in memory, so that whatever the device waits for is ours.
_MOST_IDLE: Final = 0.1
# Beside the first, a copy has nothing to wait for; some come while a slide ends.
_LEAST_BESIDE: Final = 0.8


def check(setting: Setting) -> Finding:
    """On a CPU there are no copies and no other device: only the batcher's own count."""
    keep_compiled_code_in(setting.scratch / "compiled")
    spec, device = tile_encoder_spec(setting), torch.device(setting.device)
    encoder = TileEncoder(spec, tile_encoder_weights(setting, spec), device)
    encoder.warm_up()
    batcher = TileBatcher(encoder)
    _encode_slides(batcher, spec.input_px, setting)  # unmeasured: buffers are made
    idle_s, busy_s = batcher.idle_s, batcher.busy_s
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if setting.on_gpu else [ProfilerActivity.CPU]
    with profile(activities=kinds) as profiled:
        _encode_slides(batcher, spec.input_px, setting)
        idle_s, busy_s = batcher.idle_s - idle_s, batcher.busy_s - busy_s
    padded = batcher.padded_tiles
    batcher.close()
    numbers = [
        Number(
            name="batcher's idle share",
            value=idle_s / (idle_s + busy_s),
            at_most=_MOST_IDLE if setting.on_gpu else None,
            source="tiles lie ready in memory",
        ),
        Number(name="rows without a tile", value=padded, at_most=2 * spec.batch_tiles, source="two ends of all slides"),
    ]
    if not setting.on_gpu:
        return Finding(numbers=tuple(numbers), notes=("A CPU has nothing to copy to and no trace of its own.",))
    spans = device_spans(profiled.events())
    numbers += [
        Number(name=DEVICE_IDLE, value=idle_share(spans), at_most=_MOST_IDLE, source="tiles lie ready in memory"),
        Number(
            name=COPIES_BESIDE, value=overlapped_share(spans), at_least=_LEAST_BESIDE, source="a stream of their own"
        ),
        *(Number(name=time_in(kind), value=share) for kind, share in shares(spans).items()),
    ]
    return Finding(numbers=tuple(numbers), facts={"compiled": str(encoder.compiled)})


def _encode_slides(batcher: TileBatcher, input_px: int, setting: Setting) -> None:
    """Four threads, as the worker's slides; returns when all features are there."""
    batches = _SMALL_BATCHES if setting.small else _BATCHES
    tiles = tissue_like_tiles(tile_encoder_spec(setting).batch_tiles, input_px)

    def encode() -> None:
        with batcher.slide() as slide:
            for _ in range(batches):
                slide.put(tiles)
                slide.take()
            for _ in slide.finish():
                pass

    threads = [threading.Thread(target=encode) for _ in range(_SLIDES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
