"""Training slides as features: drawn, cut and encoded by what will draw, cut and encode the slides that are served.

A bank is a folder of parts `part-<n>.safetensors`, each some slides: `features` float16 [tiles, D], `coords` int32
[tiles, 2] in grid steps (column, row), raster order within a slide, `lengths` int64 [slides] and `seeds` int64.
A part that is there is kept, so an interrupted run goes on.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from encoders.errors import NoTissue
from encoders.tile_encoder.encode import TileEncoder
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.plan_tiles import stride_px_level0
from encoders.tiling.read_tiles import read_tile
from model_store.manifest import Manifest
from synthetic.slide_truth import FIRST_TRAINING_SEED, SlideTruth, slide_truth
from synthetic.synthetic_slide import SyntheticSlide
from training.tile_encoder.drawn_slide_reader import DrawnSlideReader

# Tiles of these slides were never shown to the tile encoder while it learned.
FIRST_SLIDE_SEED: Final = FIRST_TRAINING_SEED + 1_000_000
# Sides in tiles, drawn at random: smaller than what is served, because drawing and encoding are what costs.
LEAST_SIDE_TILES: Final = 10
MOST_SIDE_TILES: Final = 19
SLIDES_PER_PART: Final = 25


@dataclass(frozen=True)
class BankedSlide:
    """Features float16 [tiles, D] and grid coordinates int32 [tiles, 2] (column, row) of one slide."""

    truth: SlideTruth
    features: NDArray[np.float16]
    coords: NDArray[np.int32]


def make_slide_bank(
    folder: Path, manifest: Manifest, tile_weights: Path, slides: int, first_seed: int, processes: int
) -> list[BankedSlide]:
    """Draws and encodes `slides` slides from `first_seed` on, with the tile encoder of `tile_weights`."""
    folder.mkdir(parents=True, exist_ok=True)
    end = first_seed + slides
    parts = [range(start, min(end, start + SLIDES_PER_PART)) for start in range(first_seed, end, SLIDES_PER_PART)]
    missing = [(number, seeds) for number, seeds in enumerate(parts) if not _part(folder, number).is_file()]
    # Started anew: a fork of a process in which torch has computed waits for threads that are not there.
    with ProcessPoolExecutor(processes, get_context("spawn"), partial(_load, manifest, tile_weights)) as pool:
        for number, _ in enumerate(pool.map(partial(_make_part, folder), missing), len(parts) - len(missing) + 1):
            print(f"slides drawn: {min(slides, number * SLIDES_PER_PART)} of {slides}", flush=True)
    return [slide for number in range(len(parts)) for slide in _read_part(_part(folder, number))]


def encoded_slide(slide: SyntheticSlide, encoder: TileEncoder, manifest: Manifest) -> BankedSlide:
    """One slide through planning, reading and the tile encoder; raises NoTissue."""
    reader = DrawnSlideReader(slide)
    plan = make_plan(reader, manifest.first_input.tiling, None, ReaderLimits())
    tiles = np.stack([read_tile(reader, plan, int(x), int(y)) for x, y in plan.coords])
    coords = (plan.coords // stride_px_level0(plan.tile_px_level0)).astype(np.int32)
    return BankedSlide(slide.truth, encoder.encode(tiles).astype(np.float16), coords)


_ENCODER: TileEncoder | None = None
_MANIFEST: Manifest | None = None


def _load(manifest: Manifest, tile_weights: Path) -> None:
    """Once in every process: the encoder that `_make_part` uses."""
    global _ENCODER, _MANIFEST
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # bf16 differs from what is served by half a percent and takes less than half the time, where the processor has it;
    # where it does not (AVX2 alone), it takes six times as long.
    dtype = "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
    spec = manifest.first_input.tile_encoder.model_copy(update={"dtype": dtype})
    _ENCODER, _MANIFEST = TileEncoder(spec, tile_weights, torch.device("cpu")), manifest


def _make_part(folder: Path, task: tuple[int, range]) -> None:
    number, seeds = task
    slides = [slide for seed in seeds for slide in _drawn(seed)]
    tensors = {
        "features": np.concatenate([slide.features for slide in slides]),
        "coords": np.concatenate([slide.coords for slide in slides]),
        "lengths": np.array([len(slide.coords) for slide in slides]),
        "seeds": np.array([slide.truth.seed for slide in slides]),
    }
    partial_file = folder / f".part-{number}"
    save_file(tensors, partial_file)
    partial_file.rename(_part(folder, number))


def _drawn(seed: int) -> Iterator[BankedSlide]:
    assert _ENCODER is not None, "every process has loaded it"
    assert _MANIFEST is not None, "every process has loaded it"
    rng = np.random.default_rng([seed, 3])
    side = _MANIFEST.first_input.tiling.tile_px
    width, height = rng.integers(LEAST_SIDE_TILES, MOST_SIDE_TILES + 1, 2) * side
    mpp = _MANIFEST.first_input.tiling.target_mpp
    try:
        yield encoded_slide(
            SyntheticSlide(seed=seed, width_px=int(width), height_px=int(height), mpp=mpp), _ENCODER, _MANIFEST
        )
    except NoTissue:
        return  # a small slide of thin tissue; the others stay


def _read_part(path: Path) -> list[BankedSlide]:
    part = load_file(path)
    ends = np.cumsum(part["lengths"])
    return [
        BankedSlide(slide_truth(int(seed)), part["features"][end - length : end], part["coords"][end - length : end])
        for seed, length, end in zip(part["seeds"], part["lengths"], ends, strict=True)
    ]


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:04d}.safetensors"
