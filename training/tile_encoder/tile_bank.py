"""Labelled tiles to train the tile encoder on: drawn once from training seeds, kept as plain arrays.

tiles.npy            uint8 [T, tile_px, tile_px, 3], RGB
labels.safetensors   one array per task of `TASKS` (int64 [T], `UNLABELLED` where a tile does not show it), and
                     `regions` float32 [T, 5], the share of each of the layout's regions
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from synthetic.slide_layout import REGIONS
from synthetic.slide_truth import FIRST_TRAINING_SEED, GRADES, PATTERNS, SlideTruth
from synthetic.synthetic_slide import BLOCK_PX, SyntheticSlide
from training.tile_encoder.drawn_slide_reader import through_jpeg

TARGET_MPP: Final = 0.5
TILE_PX: Final = 224
UNLABELLED: Final = -100
TASKS: Final = {"pattern": len(PATTERNS), "grade": len(GRADES), "mitoses": 2, "lymphocytes": 2, "stroma": 2}
FIRST_TILE_SEED: Final = FIRST_TRAINING_SEED
TILES_PER_SLIDE: Final = 12
SLIDE_UM: Final = (2304.0, 1920.0)
_SIDE_UM: Final = TILE_PX * TARGET_MPP
_BLOCKS_PER_SLIDE: Final = 2
_TRIES: Final = 20
_FINER_SCAN_SHARE: Final = 0.15

LABELS_FILE: Final = "labels.safetensors"
Labels = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class TileBank:
    """Tiles [T, tile_px, tile_px, 3], mapped from disk, and their labels."""

    tiles: NDArray[np.uint8]
    labels: Labels


def make_tile_bank(folder: Path, slides: int, first_seed: int, processes: int) -> TileBank:
    """Draws `TILES_PER_SLIDE` tiles of each slide; keeps a complete bank of as many slides."""
    done = folder / "bank.json"
    wanted = {"slides": slides, "first_seed": first_seed}
    if not (done.is_file() and json.loads(done.read_text()) == wanted):
        folder.mkdir(parents=True, exist_ok=True)
        _draw(folder, range(first_seed, first_seed + slides), processes)
        done.write_text(json.dumps(wanted))
    return TileBank(np.load(folder / "tiles.npy", mmap_mode="r"), load_file(folder / LABELS_FILE))


def _draw(folder: Path, seeds: range, processes: int) -> None:
    shape = (len(seeds) * TILES_PER_SLIDE, TILE_PX, TILE_PX, 3)
    tiles = np.lib.format.open_memmap(folder / "tiles.npy", mode="w+", dtype=np.uint8, shape=shape)
    labels: list[Labels] = []
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for number, (pixels, described) in enumerate(pool.map(tiles_of_slide, seeds, chunksize=8)):
            tiles[number * TILES_PER_SLIDE :][:TILES_PER_SLIDE] = pixels
            labels.append(described)
    tiles.flush()
    save_file({name: np.concatenate([one[name] for one in labels]) for name in labels[0]}, folder / LABELS_FILE)


def tiles_of_slide(seed: int) -> tuple[NDArray[np.uint8], Labels]:
    """`TILES_PER_SLIDE` tiles with tissue in them, and their labels."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, 2])
    mpp = TARGET_MPP / 2 if rng.random() < _FINER_SCAN_SHARE else TARGET_MPP
    width, height = (round(side / mpp) for side in SLIDE_UM)
    slide = SyntheticSlide(seed=seed, width_px=width, height_px=height, mpp=mpp)
    places = list(_places(slide, rng))
    pixels = np.stack([_tile(slide, x, y) for x, y in places])
    shares = [slide.layout.composition(x * mpp, y * mpp, _SIDE_UM) for x, y in places]
    return pixels, _labels(slide.truth, np.array([[share[name] for name in REGIONS] for share in shares]))


def _places(slide: SyntheticSlide, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Corners in level-0 pixels, from few of the blocks that slides are drawn in: drawing is what costs."""
    truth = slide.truth
    options = (
        ["stroma", "any"] + ["tumour"] * 3 * (truth.pattern != "benign") + ["necrosis"] * (truth.necrosis is not None)
    )
    block_um = BLOCK_PX * slide.mpp
    for _ in range(_BLOCKS_PER_SLIDE):
        block = _wished(slide, options[rng.integers(len(options))], rng) // block_um * block_um
        for _ in range(TILES_PER_SLIDE // _BLOCKS_PER_SLIDE):
            x, y = block + _with_tissue(slide, block, rng)
            yield round(x / slide.mpp), round(y / slide.mpp)


def _wished(slide: SyntheticSlide, options: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A corner (x, y) in µm of a square with much of a region, or of tissue of any kind."""
    tries = rng.uniform(0, 1, (_TRIES, 2)) * (np.array(SLIDE_UM) - _SIDE_UM)
    shares = [slide.layout.composition(x, y, _SIDE_UM) for x, y in tries]
    scores = [1 - share["glass"] if options == "any" else share[options] for share in shares]
    return np.asarray(tries[int(np.argmax(scores))])


def _with_tissue(slide: SyntheticSlide, block: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A place within the block, in µm from its corner: the first of some tries that is not mostly glass."""
    tries = rng.uniform(0, BLOCK_PX * slide.mpp - _SIDE_UM, (_TRIES, 2))
    glass = [slide.layout.composition(x, y, _SIDE_UM)["glass"] for x, y in block + tries]
    return np.asarray(next((place for place, share in zip(tries, glass, strict=True) if share < 0.6), tries[0]))


def _tile(slide: SyntheticSlide, x: int, y: int) -> NDArray[np.uint8]:
    side = round(TILE_PX * TARGET_MPP / slide.mpp)
    pixels = through_jpeg(slide.draw(x, y, side, side))
    return np.asarray(cv2.resize(pixels, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _labels(truth: SlideTruth, regions: NDArray[np.float64]) -> Labels:
    share = dict(zip(REGIONS, regions.T, strict=True))
    tumour, viable = share["tumour"] > 0.35, share["tumour"] + share["stroma"] > 0.5
    benign = truth.pattern == "benign"
    return {
        "pattern": _where(viable if benign else tumour, PATTERNS.index(truth.pattern)),
        "grade": _where(tumour, UNLABELLED if truth.grade is None else truth.grade - 1),
        "mitoses": _where(tumour, int(truth.mitoses == "frequent")),
        "lymphocytes": _where(viable, UNLABELLED if truth.pattern == "lymphoid" else int(truth.lymphocytes == "dense")),
        "stroma": _where(share["stroma"] > 0.25, int(truth.stroma == "loose")),
        "regions": regions.astype(np.float32),
    }


def _where(shown: NDArray[np.bool_], label: int) -> NDArray[np.int64]:
    return np.where(shown, label, UNLABELLED)
