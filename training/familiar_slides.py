"""The last step: statistics of the tissue that the demo model knows, of slides that none of its parts was trained on.

Each slide has a stain and a scanner of its own, and the size of those that are served.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.familiarity import fit, keep_statistics
from encoders.tile_encoder.encode import TileEncoder
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.read_tiles import read_tile
from model_store.installed import InstalledModel
from synthetic.synthetic_slide import SyntheticSlide
from synthetic.write_slide import HEIGHT_UM, WIDTH_UM
from training.tile_encoder.drawn_slide_reader import DrawnSlideReader

# Below those of training; examinations draw from others.
FIRST_FAMILIAR_SEED: Final = 2_000_300_000


def record_familiarity(model: InstalledModel, slides: int) -> InstalledModel:
    """The model with statistics of so many slides, encoded as they are when they are served; without, for 0."""
    if not slides:
        return model
    return keep_statistics(model, fit(list(_tile_features(model, slides))))


def _tile_features(model: InstalledModel, slides: int) -> Iterator[NDArray[Any]]:
    given = model.manifest.first_input
    encoder = TileEncoder(given.tile_encoder, model.file(given.tile_encoder.weights), torch.device("cpu"))
    mpp = given.tiling.target_mpp
    width_px, height_px = round(WIDTH_UM / mpp), round(HEIGHT_UM / mpp)
    for number in range(slides):
        seed = FIRST_FAMILIAR_SEED + number
        reader = DrawnSlideReader(SyntheticSlide(seed=seed, width_px=width_px, height_px=height_px, mpp=mpp))
        plan = make_plan(reader, given.tiling, None, ReaderLimits())
        yield encoder.encode(np.stack([read_tile(reader, plan, int(x), int(y)) for x, y in plan.coords]))
        print(f"slides of familiar tissue: {number + 1} of {slides}", flush=True)
