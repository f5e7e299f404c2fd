"""The tissue picture of a whole slide, hatched in grey where nothing was scanned.

Label and macro images, which show names and numbers, are never opened.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.overlay_style import UNSCANNED_DARK_RGB, UNSCANNED_RGB, hatch
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.coverage import find_coverage
from encoders.tiling.tissue.read_overview import Overview, read_overview


def read_thumbnail(reader: SlideReader, max_size: tuple[int, int], limits: ReaderLimits) -> Overview:
    """The whole slide, no more, within (width, height), never enlarged; hatched where level 0 has no pixels."""
    return hatched(read_whole(reader, max_size, limits))


def read_whole(reader: SlideReader, max_size: tuple[int, int], limits: ReaderLimits) -> Overview:
    """The same, white where level 0 has no pixels."""
    width, height = reader.facts.width, reader.facts.height
    scale = max(1.0, width / max_size[0], height / max_size[1])
    overview = read_overview(reader, scale, scale, limits)
    inside = np.s_[: max(1, int(height / overview.px_level0)), : max(1, int(width / overview.px_level0))]
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    picture = np.asarray(cv2.resize(overview.pixels[inside], size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    scanned = find_coverage(reader, 0, overview).scanned
    if scanned is None:
        return Overview(picture, scale)
    scanned = cv2.resize(scanned[inside].astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    picture[~scanned] = 255
    return Overview(picture, scale, np.asarray(scanned, dtype=np.bool_))


def hatched(whole: Overview) -> Overview:
    """The picture with grey lines where nothing was scanned."""
    if whole.covered is None:
        return whole
    picture, unscanned, lines = whole.pixels.copy(), ~whole.covered, hatch(whole.covered.shape)
    picture[unscanned & lines], picture[unscanned & ~lines] = UNSCANNED_DARK_RGB, UNSCANNED_RGB
    return Overview(picture, whole.px_level0, whole.covered)


def as_png(rgb: NDArray[np.uint8]) -> bytes:
    """The picture [h, w, 3], compressed."""
    encoded, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert encoded, "PNG takes every RGB picture"
    return np.asarray(png).tobytes()
