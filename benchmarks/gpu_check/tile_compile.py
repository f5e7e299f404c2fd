"""The tile encoder is compiled once: not again for a batch that is not full, for another thread, or for the batcher.

A second compilation of the published model takes minutes of a GPU in which slides wait, and nothing says so.
"""

import shutil
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from benchmarks.gpu_check.published_models import tile_encoder_spec, tile_encoder_weights
from benchmarks.gpu_check.results import CheckSkipped, Finding, Number
from benchmarks.gpu_check.setting import Setting
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.compile_model import keep_compiled_code_in
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.float8_gate import cosines
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from model_store.contracts.tile_encoder import TimmTileEncoder

# As between any two ways of computing the same in 16 bits; in float32 it is closer by far.
_LEAST_COSINE: Final = 0.999


def check(setting: Setting) -> Finding:
    """Counts what the compiler made over all kinds of batches, and compares the features with uncompiled ones."""
    if not setting.on_gpu and shutil.which("g++") is None:
        raise CheckSkipped("on a CPU compiling needs a C++ compiler, and there is none")
    keep_compiled_code_in(setting.scratch / "compiled")
    spec = _spec(setting)
    tiles = tissue_like_tiles(2 * spec.batch_tiles + 1, spec.input_px)
    expected = _encoder(setting, compiles=False).encode(tiles)

    encoder, first_s = _warm(setting)
    after_warm_up = _compilations()
    found = _kinds_of_batches(encoder, tiles)
    made = _compilations()
    torch.compiler.reset()
    _, again_s = _warm(setting)

    least = min(float(cosines(features, expected[: len(features)]).min()) for features in found)
    return Finding(
        numbers=(
            Number(name="compilations in warm_up", value=after_warm_up, at_least=1, at_most=1, source="one model"),
            Number(name="compilations in all", value=made, at_least=1, at_most=1, source="one batch shape, one mode"),
            Number(name="least cosine to uncompiled", value=least, at_least=_LEAST_COSINE, source="rounding"),
            Number(
                name="tiles at once", value=encoder.pass_tiles, target=spec.batch_tiles, source="the device's memory"
            ),
            Number(name="first warm-up, compiling", value=first_s, unit="s"),
            Number(name="warm-up with the code on disk", value=again_s, unit="s"),
        )
    )


def _warm(setting: Setting) -> tuple[TileEncoder, float]:
    encoder, started = _encoder(setting, compiles=True), time.monotonic()
    encoder.warm_up()
    if not encoder.compiled:
        raise RuntimeError(
            "compiling failed, a worker would run uncompiled; the log says why (Triton needs a C compiler)"
        )
    return encoder, time.monotonic() - started


def _encoder(setting: Setting, *, compiles: bool) -> TileEncoder:
    spec = _spec(setting)
    return TileEncoder(spec, tile_encoder_weights(setting, spec), torch.device(setting.device), compiles=compiles)


def _spec(setting: Setting) -> TimmTileEncoder:
    """Small is one block: compiling costs a CPU seconds for each."""
    spec = tile_encoder_spec(setting)
    return spec.model_copy(update={"timm_args": {**spec.timm_args, "depth": 1}}) if setting.small else spec


def _kinds_of_batches(encoder: TileEncoder, tiles: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Full, not full, several, and both through the batcher's thread and buffers; then full once more."""
    full = encoder.batch_tiles
    batcher = TileBatcher(encoder)
    ways: list[tuple[Callable[[NDArray[np.uint8]], NDArray[np.float32]], int]] = [
        (encoder.encode, full),
        (encoder.encode, 1),
        (encoder.encode, len(tiles)),
        (lambda given: _through(batcher, given), full),
        (lambda given: _through(batcher, given), len(tiles)),
        (encoder.encode, full),
    ]
    found = [encode(tiles[:count]) for encode, count in ways]
    batcher.close()
    return found


def _through(batcher: TileBatcher, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    with batcher.slide() as slide:
        slide.put(tiles)
        return np.concatenate(list(slide.finish()))


def _compilations() -> int:
    return int(counters["stats"]["unique_graphs"])
