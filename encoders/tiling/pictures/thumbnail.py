"""A PNG of the tissue picture. Label and macro images, which show names and numbers, are never opened."""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.read_overview import Overview, read_overview


def thumbnail_png(reader: SlideReader, max_px: int, limits: ReaderLimits) -> bytes:
    """PNG, RGB on white, longer side at most `max_px`, never enlarged."""
    return as_png(read_thumbnail(reader, (max_px, max_px), limits).pixels)


def read_thumbnail(reader: SlideReader, max_size: tuple[int, int], limits: ReaderLimits) -> Overview:
    """The whole slide, no more, within (width, height), never enlarged."""
    width, height = reader.facts.width, reader.facts.height
    scale = max(1.0, width / max_size[0], height / max_size[1])
    overview = read_overview(reader, scale, scale, limits)
    covered = overview.pixels[: max(1, int(height / overview.px_level0)), : max(1, int(width / overview.px_level0))]
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    picture = cv2.resize(covered, size, interpolation=cv2.INTER_AREA)
    return Overview(np.asarray(picture, dtype=np.uint8), scale)


def as_png(rgb: NDArray[np.uint8]) -> bytes:
    """The picture [h, w, 3], compressed."""
    encoded, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert encoded, "PNG takes every RGB picture"
    return np.asarray(png).tobytes()
