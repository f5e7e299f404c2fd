"""A synthetic H&E slide: the pixels of any part of it, and what is true of it.

Same seed, same tissue at any µm/px; same stain seed, same laboratory and scanner. The slide is drawn in blocks of
`BLOCK_PX` that do not know of each other, so a region has the same pixels however it is cut.
"""

from collections import OrderedDict

import numpy as np

from synthetic.draw_block import BlockPainter
from synthetic.slide_layout import SlideLayout
from synthetic.slide_truth import SlideTruth, slide_truth
from synthetic.stain import Rgb, Stain, draw_stain

BLOCK_PX = 1_024


class SyntheticSlide:
    """One slide; `draw` gives its pixels. Not safe to draw from two threads at once."""

    def __init__(
        self, *, seed: int, width_px: int, height_px: int, mpp: float = 0.5, stain_seed: int | None = None
    ) -> None:
        self.truth: SlideTruth = slide_truth(seed)
        self.width_px, self.height_px, self.mpp = width_px, height_px, mpp
        self.layout = SlideLayout(self.truth, width_um=width_px * mpp, height_um=height_px * mpp)
        self.stain: Stain = draw_stain(seed if stain_seed is None else stain_seed)
        self._painter = BlockPainter(self.truth, self.layout, self.stain, mpp)
        self._blocks: OrderedDict[tuple[int, int], Rgb] = OrderedDict()
        # Enough for whoever reads the slide in rows of tiles, and for the whole of a small slide.
        self._most_blocks = max(20, width_px // BLOCK_PX + 3)

    def draw(self, x: int, y: int, width: int, height: int) -> Rgb:
        """RGB uint8 [height, width, 3] of the level-0 pixels from (x, y); beyond the slide there is glass."""
        picture = np.empty((height, width, 3), dtype=np.uint8)
        for row in range(y // BLOCK_PX, (y + height - 1) // BLOCK_PX + 1):
            for column in range(x // BLOCK_PX, (x + width - 1) // BLOCK_PX + 1):
                self._copy(picture, (x, y), column, row)
        return picture

    def _copy(self, picture: Rgb, start: tuple[int, int], column: int, row: int) -> None:
        """Copies what a block and a picture that begins at `start` have in common."""
        left, top = column * BLOCK_PX - start[0], row * BLOCK_PX - start[1]
        part = picture[max(0, top) : top + BLOCK_PX, max(0, left) : left + BLOCK_PX]
        y, x = max(0, -top), max(0, -left)
        part[:] = self._block(column, row)[y : y + part.shape[0], x : x + part.shape[1]]

    def _block(self, column: int, row: int) -> Rgb:
        if (column, row) in self._blocks:
            self._blocks.move_to_end((column, row))
            return self._blocks[column, row]
        first = column * BLOCK_PX, row * BLOCK_PX
        block = self._painter.paint(first, (first[0] + BLOCK_PX, first[1] + BLOCK_PX))
        if len(self._blocks) >= self._most_blocks:
            self._blocks.popitem(last=False)
        self._blocks[column, row] = block
        return block
