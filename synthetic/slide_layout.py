"""The layout of a synthetic slide, in squares of a few µm. Knows nothing of pixels and stain."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.artefacts import Stroke, draw_fold, draw_pen
from synthetic.place_regions import place_fat, place_necrosis, place_tumour
from synthetic.slide_truth import SlideTruth
from synthetic.tissue_outline import Mask, tissue_mask
from synthetic.world_noise import Box, Points

# "tumour" is what grade, pattern and mitoses are seen in; "fat" is only on benign slides.
REGIONS: Final = ("glass", "tumour", "stroma", "necrosis", "fat")
CELL_UM: Final = 8.0
# Cells along the longer side of the map at least; those of a tiny slide are smaller.
_FEWEST_CELLS: Final = 128

_ARTEFACTS: Final = ("fold", "pen")


class SlideLayout:
    """The map of one slide's regions, drawn from its truth's seed in shares of the slide's sides.

    `region_map` is uint8 [rows, columns], places in `REGIONS`, from the slide's upper left. Its cells are `cell_um`
    wide: `CELL_UM`, less on tiny slides.
    """

    def __init__(self, truth: SlideTruth, *, width_um: float, height_um: float) -> None:
        rng = np.random.default_rng([truth.seed, 1])
        self.cell_um = min(CELL_UM, max(width_um, height_um) / _FEWEST_CELLS)
        # Rounded to the nearest, so that the last fraction of a µm of an odd µm/px does not make it another map.
        shape = (max(1, round(height_um / self.cell_um)), max(1, round(width_um / self.cell_um)))
        self.region_map = _regions(rng, truth, shape)
        tissue = self.region_map != REGIONS.index("glass")
        self.fold: Stroke | None = draw_fold(rng, tissue, self.cell_um)
        self.pen: Stroke | None = draw_pen(rng, tissue, self.cell_um)
        self._soft = {name: _softened(self._mask(name)) for name in REGIONS}
        self._sums = {name: _summed(self._mask(name)) for name in REGIONS}
        self._artefact_sums = {name: _summed(self._painted(name)) for name in _ARTEFACTS}

    def composition(self, x_um: float, y_um: float, side_um: float) -> dict[str, float]:
        """Share of each region in the square whose upper left corner is (x, y); what is off the slide is glass."""
        shares = {name: self._share(sums, x_um, y_um, side_um) for name, sums in self._sums.items()}
        shares["glass"] = max(0.0, 1.0 - sum(shares[name] for name in REGIONS if name != "glass"))
        return shares

    def artefacts(self, x_um: float, y_um: float, side_um: float) -> dict[str, float]:
        """Share of the square that lies under a "fold" and under "pen" (on glass as well)."""
        return {name: self._share(sums, x_um, y_um, side_um) for name, sums in self._artefact_sums.items()}

    def tumour_fraction(self) -> float:
        """Tumour area over the area of the viable tissue, of the map."""
        tumour, stroma = (int(self._mask(name).sum()) for name in ("tumour", "stroma"))
        return tumour / max(1, tumour + stroma)

    def tissue_mask(self) -> Mask:
        """Bool [rows, columns] of the map: everything but glass."""
        return ~self._mask("glass")

    def is_blank(self, box: Box) -> bool:
        """Whether the box, and one cell around it, holds nothing but glass."""
        x0, y0 = (max(0, int(np.floor(edge / self.cell_um)) - 2) for edge in (box.left, box.top))
        x1, y1 = (max(0, int(np.ceil(edge / self.cell_um)) + 2) for edge in (box.right, box.bottom))
        return not self.region_map[y0:y1, x0:x1].any()

    def region_at(self, points: Points) -> NDArray[np.uint8]:
        """Places in `REGIONS` [n] at points [n, 2] in µm; glass off the slide."""
        rows, columns = self.region_map.shape
        column, row = (np.floor(points[:, axis] / self.cell_um).astype(np.int64) for axis in (0, 1))
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        found = self.region_map[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
        return np.where(inside, found, 0).astype(np.uint8)

    def softly(self, name: str, box: Box) -> NDArray[np.uint8]:
        """How much each µm of the box, uint8 [height, width], belongs to a region; 128 is the region's edge."""
        scale = 1 / self.cell_um
        offset = [(edge + 0.5) * scale - 0.5 for edge in (box.left, box.top)]
        matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = round(box.right - box.left), round(box.bottom - box.top)
        outside = 255 if name == "glass" else 0
        field = cv2.warpAffine(self._soft[name], matrix, size, flags=flags, borderValue=outside)
        return np.asarray(field, dtype=np.uint8)

    def _share(self, sums: NDArray[np.float64], x_um: float, y_um: float, side_um: float) -> float:
        x0, y0, x1, y1 = (edge / self.cell_um for edge in (x_um, y_um, x_um + side_um, y_um + side_um))
        area = _corner(sums, x1, y1) - _corner(sums, x0, y1) - _corner(sums, x1, y0) + _corner(sums, x0, y0)
        return min(1.0, max(0.0, float(area) * (self.cell_um / side_um) ** 2))

    def _mask(self, name: str) -> Mask:
        return np.asarray(self.region_map == REGIONS.index(name))

    def _painted(self, name: str) -> Mask:
        plane = np.zeros(self.region_map.shape, dtype=np.uint8)
        stroke = self.fold if name == "fold" else self.pen
        if stroke is not None:
            stroke.paint(plane, (0.0, 0.0), self.cell_um, 1)
        return plane.astype(np.bool_) & (self.tissue_mask() if name == "fold" else True)


def _regions(rng: np.random.Generator, truth: SlideTruth, shape: tuple[int, int]) -> NDArray[np.uint8]:
    tissue, necrosis = _tissue_with_room(rng, truth, shape)
    viable = tissue & ~necrosis
    region_map = np.where(tissue, REGIONS.index("stroma"), REGIONS.index("glass")).astype(np.uint8)
    if truth.pattern == "benign":
        region_map[place_fat(rng, viable)] = REGIONS.index("fat")
    else:
        region_map[place_tumour(rng, viable, truth.tumour_fraction, necrosis)] = REGIONS.index("tumour")
    region_map[necrosis] = REGIONS.index("necrosis")
    return region_map


def _tissue_with_room(rng: np.random.Generator, truth: SlideTruth, shape: tuple[int, int]) -> tuple[Mask, Mask]:
    """Tissue, and the necrosis that its truth wants; outlines without room for it are drawn again."""
    while True:
        tissue = tissue_mask(rng, shape)
        if truth.necrosis is None:
            return tissue, np.zeros_like(tissue)
        necrosis = place_necrosis(rng, tissue, truth.necrosis)
        if necrosis is not None:
            return tissue, necrosis


def _softened(mask: Mask) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), 1.1), dtype=np.uint8)


def _summed(mask: Mask) -> NDArray[np.float64]:
    """Float64 [rows + 1, columns + 1]: the area above and left of each corner, in cells."""
    return np.asarray(cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_64F), dtype=np.float64)


def _corner(sums: NDArray[np.float64], x: float, y: float) -> float:
    """The summed area at a corner between cells' corners; what is off the map adds nothing."""
    y, x = (min(max(place, 0.0), last - 1.0) for place, last in zip((y, x), sums.shape, strict=True))
    row, column = min(int(y), sums.shape[0] - 2), min(int(x), sums.shape[1] - 2)
    part = sums[row : row + 2, column : column + 2]
    down, right = y - row, x - column
    upper, lower = (line[0] * (1 - right) + line[1] * right for line in part)
    return float(upper * (1 - down) + lower * down)
