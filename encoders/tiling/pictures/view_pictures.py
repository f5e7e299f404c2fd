"""Pictures of an open slide for people who look at it: DeepZoom tiles, and thumbnails of the whole.

Runs in the reader process. Label and macro images, which show names and numbers, are never opened.
"""

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from encoders.errors import SlideError
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.deep_zoom import DeepZoom, TilePlace
from encoders.tiling.pictures.thumbnail import as_png, hatched, read_thumbnail, read_whole
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.read_overview import BLOCK_PX, Overview

# The longer side of the small picture that is made once: 12 MB at most.
OVERVIEW_PX = 2_048
JPEG_QUALITY = 85
# A level that is coarser than a tile by so little serves it as it is: half a pixel of 256.
_TOLERATED = 1.002
# Tiles that would take more than so many of a level's pixels a side for one of theirs come from the small picture,
# where it has that detail.
_MOST_REDUCTION = 2

Picture = NDArray[np.uint8]


class ViewPictures:
    """What is asked for of one slide. Not safe to call from threads.

    Every picture is RGB in the colours that tiles are encoded in, without a profile. Raises UnreadableSlide naming the
    level-0 rectangle where a picture's part of the slide is damaged, or SlideTooLarge; both stay so for the small
    picture, which is tried once.
    """

    def __init__(self, reader: SlideReader, limits: ReaderLimits) -> None:
        self._reader = reader
        self._limits = limits
        self._pyramid = DeepZoom(reader.facts.width, reader.facts.height)
        self._small: Overview | SlideError | None = None
        self._levels: dict[int, Picture] = {}

    def tile_jpeg(self, level: int, column: int, row: int) -> bytes:
        """A DeepZoom tile, white where nothing was scanned; ValueError when there is none at this address."""
        place = self._pyramid.place(level, column, row)
        if place is None:
            raise ValueError("the level has no such tile")
        return as_jpeg(self._tile(place))

    def part(self, place: TilePlace) -> Picture:
        """RGB uint8 [height, width, 3] of any part of the slide at any whole scale, white where nothing was scanned."""
        return self._tile(place)

    def thumbnail(self, max_px: int) -> Picture:
        """The whole slide, its longer side at most `max_px`, never enlarged, hatched where nothing was scanned."""
        if max_px > OVERVIEW_PX:
            return read_thumbnail(self._reader, (max_px, max_px), self._limits).pixels
        width, height = self._reader.facts.width, self._reader.facts.height
        scale = max(1.0, width / max_px, height / max_px)
        size = max(1, round(width / scale)), max(1, round(height / scale))
        small = self._overview()
        picture = _resized(small.pixels, size)
        if small.covered is None:
            return picture
        scanned = cv2.resize(small.covered.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        return hatched(Overview(picture, scale, scanned)).pixels

    def _tile(self, place: TilePlace) -> Picture:
        """RGB uint8 [place.height, place.width, 3]."""
        index = self._level_for(place.scale)
        if place.scale > _MOST_REDUCTION * self._reader.levels[index].downsample and self._has_detail(place.scale):
            whole = self._whole_level(place.scale)
            return whole[place.top : place.top + place.height, place.left : place.left + place.width]
        return self._read(place, index)

    def _level_for(self, scale: int) -> int:
        """The coarsest level that has the detail."""
        levels = self._reader.levels
        fine = (index for index, level in enumerate(levels) if level.downsample <= max(1.0, scale * _TOLERATED))
        return max(fine, key=lambda index: levels[index].downsample)

    def _has_detail(self, scale: int) -> bool:
        longer = max(self._pyramid.width, self._pyramid.height)
        return max(1.0, longer / OVERVIEW_PX) <= scale * _TOLERATED

    def _overview(self) -> Overview:
        """The small picture, white where nothing was scanned; its `covered` says where."""
        if self._small is None:
            try:
                self._small = read_whole(self._reader, (OVERVIEW_PX, OVERVIEW_PX), self._limits)
            except SlideError as error:
                self._small = error
        if isinstance(self._small, SlideError):
            raise self._small
        return self._small

    def _whole_level(self, scale: int) -> Picture:
        """All of a DeepZoom level, from the small picture; kept, all of them together are smaller than that."""
        if scale not in self._levels:
            small = self._overview()
            width, height = (-(-side // scale) for side in (self._pyramid.width, self._pyramid.height))
            whole = round(width * scale / small.px_level0), round(height * scale / small.px_level0)
            self._levels[scale] = _reduced(small.pixels, whole, (width, height))
        return self._levels[scale]

    def _read(self, place: TilePlace, index: int) -> Picture:
        """The tile from a level, in parts of BLOCK_PX so that a slide without a pyramid needs no more memory."""
        level = self._reader.levels[index]
        ratio = place.scale / level.downsample
        if max(place.width, place.height) * ratio > BLOCK_PX:
            return self._read_parts(place, index)
        # A level may end before the last tile does: sides are rounded down in many files.
        left, top = min(round(place.left * ratio), level.width - 1), min(round(place.top * ratio), level.height - 1)
        width, height = max(1, round(place.width * ratio)), max(1, round(place.height * ratio))
        pixels, _ = self._reader.read_covered(
            round(left * level.downsample),
            round(top * level.downsample),
            index,
            min(width, level.width - left),
            min(height, level.height - top),
        )
        return _reduced(pixels, (width, height), (place.width, place.height))

    def _read_parts(self, place: TilePlace, index: int) -> Picture:
        picture = np.empty((place.height, place.width, 3), dtype=np.uint8)
        half_width, half_height = -(-place.width // 2), -(-place.height // 2)
        for top in range(0, place.height, half_height):
            for left in range(0, place.width, half_width):
                width, height = min(half_width, place.width - left), min(half_height, place.height - top)
                part = TilePlace(place.scale, place.left + left, place.top + top, width, height)
                picture[top : top + height, left : left + width] = self._read(part, index)
        return picture


def as_picture(rgb: Picture, form: str) -> bytes:
    """The picture [h, w, 3] as "png" or "jpeg"."""
    return as_png(rgb) if form == "png" else as_jpeg(rgb)


def as_jpeg(rgb: Picture) -> bytes:
    """The picture [h, w, 3], compressed."""
    coded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), JPEG_QUALITY, "RGB", "420")
    return coded


def _reduced(pixels: Picture, whole: tuple[int, int], size: tuple[int, int]) -> Picture:
    """By area, to (width, height), from a picture that should be `whole` (width, height) and may lack a part of what
    its last column and row of means cover; these are means over the part that is there."""
    for axis, wanted, count in ((1, whole[0], size[0]), (0, whole[1], size[1])):
        lacking = wanted - pixels.shape[axis]
        if lacking > 0:
            begin = min(int(wanted / count * (count - 1)), pixels.shape[axis] - 1)
            mean = np.take(pixels, range(begin, pixels.shape[axis]), axis).mean(axis, keepdims=True)
            pixels = np.concatenate([pixels, mean.round().astype(np.uint8).repeat(lacking, axis)], axis)
    return _resized(pixels, size)


def _resized(pixels: Picture, size: tuple[int, int]) -> Picture:
    """By area, to (width, height)."""
    if pixels.shape[1::-1] == size:
        return pixels.copy()
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
