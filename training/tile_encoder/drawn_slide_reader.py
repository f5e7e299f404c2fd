"""A synthetic slide as tiling sees slides: what is trained on is cut by the code that will cut it when it is served."""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.reduce_region import ReducesByArea
from encoders.tiling.slide_readers.slide_reader import Level
from encoders.types import SlideFacts
from synthetic.synthetic_slide import SyntheticSlide
from synthetic.write_pyramid import JPEG_QUALITY


class DrawnSlideReader(ReducesByArea):
    """One level, never damaged, and never a file: pixels are drawn when they are read. For one thread."""

    def __init__(self, slide: SyntheticSlide) -> None:
        self._slide = slide
        self.facts = SlideFacts("synthetic", slide.width_px, slide.height_px, slide.mpp, 10 / slide.mpp)
        self.levels = (Level(slide.width_px, slide.height_px, 1.0),)
        self.tile_sizes = (None,)

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """RGB uint8 [height, width, 3] from level-0 (x, y), as JPEG leaves it; white outside the slide."""
        assert level == 0, "it has one level"
        picture = through_jpeg(self._slide.draw(x, y, width, height))
        picture[max(0, self._slide.height_px - y) :] = 255
        picture[:, max(0, self._slide.width_px - x) :] = 255
        if out is None:
            return picture
        out[...] = picture
        return out

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        """Nothing is compressed."""
        return None


def through_jpeg(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture [h, w, 3] after compression as a slide file has it, with halved chroma."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]
    _, compressed = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(compressed, cv2.IMREAD_COLOR)
    assert decoded is not None, "it was compressed a line above"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
