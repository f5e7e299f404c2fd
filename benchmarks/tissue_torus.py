"""A picture of tissue that repeats without a seam, so that a slide of any size can be cut from it."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.smooth_noise import wrapped_noise
from synthetic.synthetic_slide import SyntheticSlide

Rgb = NDArray[np.uint8]

# A slide of synthetic/ whose middle is tissue throughout: keratinising tumour in fibrous stroma.
_SLIDE_SEED = 1
_STAIN_SEED = 1
_SLIDE_PX = (9_216, 7_680)
_CROP_PX = 2_400
# Drawn coarser than the slide claims and given fine grain: drawn tissue is smoother than scanned tissue, and what
# decoding costs depends on how many bytes a tile has. Chosen by hand for 18-19 kB per tile of 256 px (4:2:0, q85).
_DRAWN_MPP = 0.33
_GRAIN_GREY = 5.0
_GRAIN_PX = 0.7


@dataclass(frozen=True)
class TissueTorus:
    """RGB uint8 [side + tile, side + tile, 3]; what lies at or beyond `side` repeats the beginning."""

    pixels: Rgb
    side_px: int

    def tile(self, x: int, y: int, width: int, height: int) -> Rgb:
        """A view of the pixels from (x, y), both taken modulo the side; at most one tile wide and high."""
        left, top = x % self.side_px, y % self.side_px
        return self.pixels[top : top + height, left : left + width]


def draw_tissue_torus(seed: int, tile_px: int) -> TissueTorus:
    """A square of drawn tissue and its mirror images; `seed` chooses laboratory, scanner and grain."""
    crop = _drawn_crop(seed)
    mirrored = np.concatenate([crop, crop[:, ::-1]], axis=1)
    torus = np.concatenate([mirrored, mirrored[::-1]])
    return TissueTorus(np.pad(torus, ((0, tile_px), (0, tile_px), (0, 0)), mode="wrap"), 2 * _CROP_PX)


@lru_cache(maxsize=1)
def _drawn_crop(seed: int) -> Rgb:
    width, height = _SLIDE_PX
    slide = SyntheticSlide(
        seed=_SLIDE_SEED, width_px=width, height_px=height, mpp=_DRAWN_MPP, stain_seed=_STAIN_SEED + seed
    )
    return _grained(slide.draw(*_fullest_place(slide), _CROP_PX, _CROP_PX), np.random.default_rng([seed, 7]))


def _fullest_place(slide: SyntheticSlide) -> tuple[int, int]:
    """Corner (x, y) of the square with the most tissue."""
    px_per_cell = slide.layout.cell_um / slide.mpp
    side = int(_CROP_PX / px_per_cell)
    sums = cv2.integral(slide.layout.tissue_mask().astype(np.uint8))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(column * px_per_cell), int(row * px_per_cell)


def _grained(picture: Rgb, rng: np.random.Generator) -> Rgb:
    grain = wrapped_noise(rng, len(picture), _GRAIN_PX, _GRAIN_PX) * _GRAIN_GREY
    return np.asarray(np.clip(picture + grain[..., np.newaxis], 0, 255), dtype=np.uint8)
