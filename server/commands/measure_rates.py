"""Measures how fast this machine reads a slide's tiles and encodes them, on a few of them."""

import time
from dataclasses import dataclass

import numpy as np

from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.types import TilePlan
from model_store.errors import EyepieceError
from server.commands.inspected_model import InspectedModel

# Enough to keep every decoder thread busy for a while; on a slow path the time ends it.
_SAMPLE_TILES, _SAMPLE_S = 2_048, 2.0
_BATCH_TILES = 32
# A batch has to fit into the reader's memory: a region of 4096 px is one.
_BATCH_PX = 2**24


@dataclass(frozen=True)
class EncodeRate:
    """Tiles per second on `device`; without a rate, `note` says why there is none."""

    tiles_per_s: float | None
    device: str | None
    note: str | None


def read_rate(reader: ReaderProcess, plan: TilePlan) -> float:
    """Tiles per second of a run from the plan's middle, through the reader process; the reader is spent by it."""
    sample = min(len(plan.coords), _SAMPLE_TILES)
    batch_tiles = max(1, min(_BATCH_TILES, sample // 8, _BATCH_PX // plan.tile_px**2))
    started, done = time.perf_counter(), 0
    for batch in reader.tiles(batch_tiles, first_tile=(len(plan.coords) - sample) // 2):
        done += len(batch.pixels)
        if done >= sample or time.perf_counter() - started > _SAMPLE_S:
            break
    return done / (time.perf_counter() - started)


def encode_rate(model: InspectedModel, device: str) -> EncodeRate:
    """Tiles per second of one warm batch, not compiled: where a worker compiles, it is faster."""
    if model.installed is None:
        return EncodeRate(None, None, f"the model {model.manifest.name} is not installed here")
    if not model.manifest.inputs:
        return EncodeRate(None, None, f"the model {model.manifest.name} has no tile encoder whose rate would say it")
    try:
        from encoders.device import choose_device  # torch
        from encoders.device_errors import translated_device_errors
        from encoders.one_gpu import see_one_gpu
        from encoders.tile_encoder.encode import TileEncoder
    except ImportError:
        return EncodeRate(None, None, "the worker's packages (torch, timm) are not installed here")
    try:
        where = choose_device(see_one_gpu(device))
        with translated_device_errors():
            encoder = TileEncoder(
                model.manifest.first_input.tile_encoder,
                model.installed.file(model.installed.manifest.first_input.tile_encoder.weights),
                where,
                compiles=False,
            )
            encoder.warm_up()
    except EyepieceError as error:  # its GPU may be full, or gone
        return EncodeRate(None, None, error.detail)
    tile_px = model.manifest.first_input.tiling.tile_px
    pixels = np.zeros((encoder.batch_tiles, tile_px, tile_px, 3), dtype=np.uint8)
    started = time.perf_counter()
    encoder.encode(pixels)
    return EncodeRate(encoder.batch_tiles / (time.perf_counter() - started), str(where), None)
