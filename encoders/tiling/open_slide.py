"""The border to OpenSlide: its errors become ours here, and of its properties only the allow-listed are ever read.

Runs in the reader process only. Coordinates are level-0 pixels, x to the right, y down.
"""

import math
from ctypes import POINTER, c_uint32
from pathlib import Path

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray
from openslide import lowlevel

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat
from encoders.tiling.reader_limits import ReaderLimits
from encoders.tiling.resolution import credible_mpp
from encoders.tiling.slide_reader import Level, damaged
from encoders.tiling.tiff_directory import is_truncated_tiff
from encoders.types import SlideFacts

MAX_OBJECTIVE_POWER = 400.0


class OpenSlideReader:
    """SlideReader over OpenSlide, without PIL: raw premultiplied BGRA composited on white."""

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        """Opens the slide; raises UnsupportedFormat, UnreadableSlide or SlideTooLarge."""
        self._path = path
        self._handle = _open(path)
        try:
            self.levels = _levels(self._handle, limits)
            self.facts = _facts(self._handle, self.levels[0])
        except openslide.OpenSlideError:
            raise _unopenable() from None

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """See SlideReader."""
        try:
            return _paint(self._handle, x, y, level, width, height)
        except openslide.OpenSlideError:
            return self._read_again(x, y, level, width, height)

    def _read_again(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """After an error a handle is dead for every later read, so the fault may be another thread's tile."""
        fresh = _open(self._path)
        try:
            pixels = _paint(fresh, x, y, level, width, height)
        except openslide.OpenSlideError:
            side = self.levels[level].downsample
            raise damaged(self.facts, x, y, math.ceil(width * side), math.ceil(height * side)) from None
        # The dead handle is closed when the last thread that reads through it lets go of it.
        self._handle = fresh
        return pixels


def _open(path: Path) -> lowlevel._OpenSlide:
    if not path.is_file():
        raise UnreadableSlide("The slide's file is not there any more; upload it again.")
    try:
        return lowlevel.open(path)
    except openslide.OpenSlideUnsupportedFormatError:
        if is_truncated_tiff(path):
            raise UnreadableSlide(
                "The file is shorter than its directory says: it was cut off on the way; upload it again."
            ) from None
        raise UnsupportedFormat(
            "This is not a whole-slide image that can be read here; upload the scanner's original file."
        ) from None
    except openslide.OpenSlideError:
        raise _unopenable() from None


def _unopenable() -> UnreadableSlide:
    return UnreadableSlide("The slide cannot be opened: it is damaged, or compressed in a way that is not supported.")


def _levels(handle: lowlevel._OpenSlide, limits: ReaderLimits) -> tuple[Level, ...]:
    count = lowlevel.get_level_count(handle)
    if count > limits.max_levels:
        raise SlideTooLarge(f"The slide has {count} levels; at most {limits.max_levels} are read.")
    sizes = [lowlevel.get_level_dimensions(handle, level) for level in range(count)]
    if not sizes or min(min(size) for size in sizes) < 1:
        raise _unopenable()
    if max(sizes[0]) > limits.max_dimension_px:
        raise SlideTooLarge(
            f"The slide is {sizes[0][0]} × {sizes[0][1]} px; at most {limits.max_dimension_px} px a side are read."
        )
    return tuple(Level(width, height, _downsample(sizes[0], (width, height))) for width, height in sizes)


def _downsample(full: tuple[int, int], level: tuple[int, int]) -> float:
    """Level-0 pixels per pixel: a whole number if that gives these sizes but for a cut pixel, else the mean ratio.

    OpenSlide reports 2.0003 for 2967 → 1483; with that, tiles of a level would lie a fraction of a pixel apart.
    """
    ratio = (full[0] / level[0] + full[1] / level[1]) / 2
    whole = max(1, round(ratio))
    if all(abs(side / whole - reduced) < 1 for side, reduced in zip(full, level, strict=True)):
        return float(whole)
    return ratio


def _facts(handle: lowlevel._OpenSlide, level0: Level) -> SlideFacts:
    vendor = lowlevel.get_property_value(handle, openslide.PROPERTY_NAME_VENDOR) or "unknown"
    mpp_x = _number(handle, openslide.PROPERTY_NAME_MPP_X)
    mpp_y = _number(handle, openslide.PROPERTY_NAME_MPP_Y)
    power = _number(handle, openslide.PROPERTY_NAME_OBJECTIVE_POWER)
    return SlideFacts(
        vendor=vendor,
        width=level0.width,
        height=level0.height,
        mpp=credible_mpp(vendor, mpp_x, mpp_y),
        objective_power=power if power is not None and 0 < power <= MAX_OBJECTIVE_POWER else None,
    )


def _number(handle: lowlevel._OpenSlide, name: str) -> float | None:
    text = lowlevel.get_property_value(handle, name)
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _paint(handle: lowlevel._OpenSlide, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
    bgra = np.empty((height, width, 4), dtype=np.uint8)
    # The public wrapper goes through PIL, which costs a quarter more and un-multiplies alpha.
    lowlevel._read_region(handle, bgra.ctypes.data_as(POINTER(c_uint32)), x, y, level, width, height)
    return _on_white(bgra)


def _on_white(bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of premultiplied BGRA over white: outside a slide OpenSlide gives (0, 0, 0, 0), which would be black."""
    rgb = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB)
    uncovered = 255 - bgra[..., 3]
    if not uncovered.any():
        return np.asarray(rgb, dtype=np.uint8)
    return np.asarray(cv2.add(rgb, cv2.merge([uncovered] * 3)), dtype=np.uint8)
