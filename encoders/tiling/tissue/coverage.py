"""Coverage: where the file has pixels at the level of the tiles. What was never scanned is neither glass nor tissue.

A low level cannot be asked alone. Its tiles cover many of level 0, and where those are missing they hold a colour that
the scanner's software chose. TIFF's directory tells which tiles have no bytes. Of other formats OpenSlide is asked for
single pixels wherever the overview is of one colour exactly.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from encoders.tiling.plan_tiles import AreaMask
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.read_overview import Overview
from encoders.tiling.tissue.scan_frame import Mask
from encoders.tiling.tissue.texture import find_flat

# An area of one colour is at least so large (pixels).
_SMALLEST_FLAT_AREA = 48
# The largest areas are asked for, each at so many places along both sides.
_ASKED_AREAS, _ASKED_ALONG = 64, 4
# Around what has no pixels: the flat area lacks two pixels on each side, the next one is mixed.
_RIM_PX = 3
# OpenSlide's vendors whose tiles lie on a grid from (0, 0); others place them where the stage was.
_ALIGNED_TILES = ("dicom", "philips")
# Of the slide: borders of tiles that lie between two pixels.
_UNSEEN_SHARE = 0.01


@dataclass(frozen=True)
class Coverage:
    """`scanned` is bool [h, w] of the overview, None for everywhere.

    `tiles` says it for planning, at its own scale: exact where the file tells, else without the border's pixels.
    """

    scanned: Mask | None
    tiles: AreaMask | None
    is_seen: bool = True
    """Whether the overview has pixels for nearly all that the file has; else tissue may lie where it is blank."""


FULL = Coverage(None, None)


def find_coverage(reader: SlideReader, level: int, overview: Overview) -> Coverage:
    """Of what is read from `level`; reads single pixels where the file does not tell. Raises UnreadableSlide."""
    empty = reader.empty_tiles(level)
    if empty is not None and not empty.any() and overview.covered is None:
        return FULL
    scanned = np.ones(overview.pixels.shape[:2], dtype=np.bool_) if overview.covered is None else overview.covered
    if empty is None:
        asked = _empty_where_asked(reader, level, overview, scanned & _inside(reader, overview, 0.0))
        # A level that is padded shows more than the slide.
        in_slide = _inside(reader, overview, 1.0)
        if scanned.all() and in_slide.all() and not asked.any():
            return FULL
        if reader.tile_sizes[level] is not None and reader.facts.vendor in _ALIGNED_TILES:
            asked = border = _whole_tiles(reader, level, asked, overview.px_level0)
        else:  # the border may lie a pixel of the overview farther out
            asked = _grown(asked, _RIM_PX)
            border = _grown(asked, 1)
        return Coverage(scanned & in_slide & ~asked, AreaMask(scanned & ~border, overview.px_level0))
    stored = _stored_mask(reader, level, ~empty)
    has_bytes = _at_overview(stored, overview)
    is_seen = (has_bytes & ~scanned).mean() <= _UNSEEN_SHARE
    return Coverage(scanned & has_bytes, stored, is_seen=bool(is_seen))


def _inside(reader: SlideReader, overview: Overview, margin_px: float) -> Mask:
    """The overview's pixels whose centres lie in the slide, or no more than `margin_px` of its pixels beyond."""
    y, x = (np.arange(count) + 0.5 - margin_px for count in overview.pixels.shape[:2])
    height, width = (side / overview.px_level0 for side in (reader.facts.height, reader.facts.width))
    return np.asarray((y < height)[:, np.newaxis] & (x < width), dtype=np.bool_)


def _stored_mask(reader: SlideReader, level: int, has_bytes: Mask) -> AreaMask:
    """The level's tiles as a mask whose pixels are squares."""
    size = reader.tile_sizes[level]
    assert size is not None, "whoever knows a level's empty tiles knows their size"
    step = math.gcd(*size)
    squares = has_bytes.repeat(size[1] // step, axis=0).repeat(size[0] // step, axis=1)
    return AreaMask(squares, step * reader.levels[level].downsample)


def _at_overview(mask: AreaMask, overview: Overview) -> Mask:
    """The mask at the centres of the overview's pixels."""
    rows, columns = (
        np.minimum(((np.arange(count) + 0.5) * overview.px_level0 / mask.px_level0).astype(np.int64), side - 1)
        for count, side in zip(overview.pixels.shape[:2], mask.inside.shape, strict=True)
    )
    return mask.inside[np.ix_(rows, columns)]


def _empty_where_asked(reader: SlideReader, level: int, overview: Overview, known: Mask) -> Mask:
    """Areas of one colour, among those that the overview's level has, of which the file has no pixel wherever it was
    asked."""
    empty = np.zeros(overview.pixels.shape[:2], dtype=np.bool_)
    flat = (find_flat(overview.pixels) & known).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(flat, connectivity=4)
    by_area = sorted(range(1, count), key=lambda label: -stats[label][cv2.CC_STAT_AREA])
    for label in by_area[:_ASKED_AREAS]:
        left, top, width, height, area = stats[label]
        if area < _SMALLEST_FLAT_AREA:
            break
        box = np.s_[top : top + height, left : left + width]
        found = labels[box] == label
        if not any(_has_pixel(reader, level, overview, left + x, top + y) for x, y in _places(found)):
            empty[box] |= found
    return empty


def _whole_tiles(reader: SlideReader, level: int, area: Mask, px_level0: float) -> Mask:
    """All pixels of the level's tiles that the area touches inside the slide; one of its pixels is `px_level0`."""
    size = reader.tile_sizes[level]
    assert size is not None, "asked for where it is known"
    y, x = ((np.arange(count) + 0.5) * px_level0 for count in area.shape)
    inside = area & (y < reader.facts.height)[:, np.newaxis] & (x < reader.facts.width)
    row, column = (
        (at / (side * reader.levels[level].downsample)).astype(np.int64) for at, side in ((y, size[1]), (x, size[0]))
    )
    touched = np.zeros((row[-1] + 1, column[-1] + 1), dtype=np.bool_)
    ys, xs = np.nonzero(inside)
    touched[row[ys], column[xs]] = True
    return np.asarray(touched[np.ix_(row, column)])


def _grown(area: Mask, by_px: int) -> Mask:
    kernel = np.ones((2 * by_px + 1, 2 * by_px + 1), np.uint8)
    return np.asarray(cv2.dilate(area.astype(np.uint8), kernel) > 0, dtype=np.bool_)


def _places(area: Mask) -> list[tuple[int, int]]:
    """(x, y) of pixels of an area, spread over it."""
    ys, xs = np.nonzero(area)
    height, width = area.shape
    cell = ys * _ASKED_ALONG // height * _ASKED_ALONG + xs * _ASKED_ALONG // width
    cells = [np.flatnonzero(cell == it) for it in np.unique(cell)]
    return [(int(xs[found[len(found) // 2]]), int(ys[found[len(found) // 2]])) for found in cells]


def _has_pixel(reader: SlideReader, level: int, overview: Overview, column: int, row: int) -> bool:
    x, y = (int((at + 0.5) * overview.px_level0) for at in (column, row))
    if x >= reader.facts.width or y >= reader.facts.height:
        return False
    _, covered = reader.read_covered(x, y, level, 1, 1)
    return covered is None or bool(covered.all())
