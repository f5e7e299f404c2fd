"""Coordinates to cells of the slide encoder's grid: on every device what float64 gives on the CPU, tile for tile.

CUDA divides float32 by a number by multiplying with its reciprocal: a tile that begins exactly at a cell's edge falls
into the cell before it, with 272 of the strides 1 … 2000.
"""

from typing import Final

import numpy as np
import torch

from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from encoders.slide_encoder.positions import grid_index

_CELLS: Final = 1000
# Level-0 pixels: what 256 px at 0.5 µm/px are on scanners between 0.06 and 1.3 µm/px, and not whole ones.
_WHOLE: Final = tuple(map(float, range(100, 2100)))
_BROKEN: Final = tuple(256 * 0.5 / mpp for mpp in (0.2201, 0.2325, 0.2498, 0.2527, 0.5032))
# Among every 20th are strides that CUDA's own division gets wrong.
_SMALL_STEP: Final = 20


def check(setting: Setting) -> Finding:
    """Every stride, with tiles on all cells' edges and one pixel on either side of them."""
    strides = (*_WHOLE[:: _SMALL_STEP if setting.small else 1], *_BROKEN)
    wrong = [stride for stride in strides if not _equal(setting, stride)]
    shown = f", e.g. of {', '.join(f'{stride:g}' for stride in wrong[:5])} px" if wrong else ""
    return Finding(
        numbers=(
            Number(name="strides that give another cell", value=len(wrong), at_most=0, source=f"exact{shown}"),
            Number(name="strides", value=len(strides)),
        )
    )


def _equal(setting: Setting, stride: float) -> bool:
    edges = np.rint(np.arange(1, _CELLS - 1) * stride).astype(np.int64)
    line = np.concatenate([edges - 1, edges, edges + 1])
    coords = np.stack([line, line[::-1]], axis=1)
    cells = np.floor(coords.astype(np.float64) / stride).astype(np.int64)
    found = grid_index(torch.from_numpy(coords).to(setting.device), stride, _CELLS)
    return np.array_equal(found.cpu().numpy(), cells[:, 0] * _CELLS + cells[:, 1])
