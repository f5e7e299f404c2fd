"""A PNG of the tissue picture. Label and macro images, which show names and numbers, are never opened."""

import cv2
import numpy as np

from encoders.tiling.read_overview import read_overview
from encoders.tiling.reader_limits import ReaderLimits
from encoders.tiling.slide_reader import SlideReader


def thumbnail_png(reader: SlideReader, max_px: int, limits: ReaderLimits) -> bytes:
    """PNG, RGB on white, longer side at most `max_px`, never enlarged."""
    width, height = reader.facts.width, reader.facts.height
    scale = max(1.0, max(width, height) / max_px)
    overview = read_overview(reader, scale, scale, limits)
    covered = overview.pixels[: max(1, int(height / overview.px_level0)), : max(1, int(width / overview.px_level0))]
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    picture = cv2.resize(covered, size, interpolation=cv2.INTER_AREA)
    encoded, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert encoded, "PNG takes every RGB picture"
    return np.asarray(png).tobytes()
