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
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.resolution import StatedResolution, judge_resolution
from encoders.tiling.slide_readers.reduce_region import ReducesByArea
from encoders.tiling.slide_readers.slide_reader import Level, cut_off, damaged
from encoders.tiling.slide_readers.tiff_directory import is_truncated_tiff
from encoders.types import SlideFacts

MAX_OBJECTIVE_POWER = 400.0
# OpenSlide decodes whole tiles and keeps none beyond its 32 MB cache: a slide in one tile of 16,000² px takes 2 GB per
# thread, once for every region. Scanners write tiles of up to 1,024 px in TIFF.
MAX_TIFF_TILE_PX = 4_096**2
# NDPI and DICOM may hold a small level in a single tile.
MAX_TILE_PX = 4 * MAX_TIFF_TILE_PX


class OpenSlideReader(ReducesByArea):
    """SlideReader over OpenSlide, without PIL: raw premultiplied BGRA composited on white.

    `tile_sizes` is (width, height) per level, or None where OpenSlide does not know it; `painted_downsamples` is what
    OpenSlide divides positions by, the mean ratio of the sides, where `levels` may have the whole number meant.
    """

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        """Opens the slide; raises UnsupportedFormat, UnreadableSlide or SlideTooLarge."""
        self._path = path
        self._handle = _open(path)
        try:
            self.levels = _levels(self._handle, limits)
            self.facts = _facts(self._handle, self.levels[0])
            count = len(self.levels)
            self.tile_sizes = tuple(_tile_size(self._handle, level, self.facts.vendor) for level in range(count))
            self.painted_downsamples = tuple(lowlevel.get_level_downsample(self._handle, i) for i in range(count))
        except openslide.OpenSlideError:
            raise _unopenable() from None

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """See SlideReader."""
        if out is None:
            out = np.empty((height, width, 3), dtype=np.uint8)
        try:
            _paint(self._handle, x, y, level, out)
        except openslide.OpenSlideError:
            self._read_again(x, y, level, out)
        return out

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        """OpenSlide does not tell."""
        return None

    def _read_again(self, x: int, y: int, level: int, out: NDArray[np.uint8]) -> None:
        """After an error a handle is dead for every later read, so the fault may be another thread's tile."""
        fresh = _open(self._path)
        try:
            _paint(fresh, x, y, level, out)
        except openslide.OpenSlideError:
            side = self.levels[level].downsample
            height, width = out.shape[:2]
            raise damaged(self.facts, x, y, math.ceil(width * side), math.ceil(height * side)) from None
        # The dead handle is closed when the last thread that reads through it lets go of it.
        self._handle = fresh


def _open(path: Path) -> lowlevel._OpenSlide:
    if not path.is_file():
        raise UnreadableSlide("The slide's file is not there any more; upload it again.")
    try:
        return lowlevel.open(path)
    except openslide.OpenSlideUnsupportedFormatError:
        if is_truncated_tiff(path):
            raise cut_off() from None
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


def _tile_size(handle: lowlevel._OpenSlide, level: int, vendor: str) -> tuple[int, int] | None:
    width, height = (_number(handle, f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
    if width is None or height is None:
        return None
    max_px = MAX_TIFF_TILE_PX if vendor in ("aperio", "generic-tiff") else MAX_TILE_PX
    if width * height > max_px:
        raise SlideTooLarge(
            f"The slide is stored in tiles of {width:.0f} × {height:.0f} px; at most {max_px} px a tile are "
            "read. Save it again in smaller tiles, for instance of 256 × 256 px."
        )
    return int(width), int(height)


def _facts(handle: lowlevel._OpenSlide, level0: Level) -> SlideFacts:
    vendor = lowlevel.get_property_value(handle, openslide.PROPERTY_NAME_VENDOR) or "unknown"
    power = _number(handle, openslide.PROPERTY_NAME_OBJECTIVE_POWER)
    power = power if power is not None and 0 < power <= MAX_OBJECTIVE_POWER else None
    said = StatedResolution(
        vendor,
        _number(handle, openslide.PROPERTY_NAME_MPP_X),
        _number(handle, openslide.PROPERTY_NAME_MPP_Y),
        power,
        _tag_mpp(handle),
        lowlevel.get_property_value(handle, "tiff.ImageDescription") or "",
    )
    mpp, warnings = judge_resolution(said)
    return SlideFacts(vendor, level0.width, level0.height, mpp, power, warnings)


def _tag_mpp(handle: lowlevel._OpenSlide) -> float | None:
    """µm/px by TIFF's resolution tags, whatever the format goes by."""
    um = {"centimeter": 10_000.0, "inch": 25_400.0}.get(
        lowlevel.get_property_value(handle, "tiff.ResolutionUnit") or ""
    )
    per_unit = _number(handle, "tiff.XResolution")
    return um / per_unit if um and per_unit and per_unit > 0 else None


def _number(handle: lowlevel._OpenSlide, name: str) -> float | None:
    text = lowlevel.get_property_value(handle, name)
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _paint(handle: lowlevel._OpenSlide, x: int, y: int, level: int, out: NDArray[np.uint8]) -> None:
    height, width = out.shape[:2]
    bgra = np.empty((height, width, 4), dtype=np.uint8)
    # The public wrapper goes through PIL, which costs a quarter more and un-multiplies alpha.
    lowlevel._read_region(handle, bgra.ctypes.data_as(POINTER(c_uint32)), x, y, level, width, height)
    _on_white(bgra, out)


def _on_white(bgra: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """RGB of premultiplied BGRA over white: outside a slide OpenSlide gives (0, 0, 0, 0), which would be black."""
    cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB, dst=out)
    uncovered = 255 - bgra[..., 3]
    if uncovered.any():
        cv2.add(out, cv2.merge([uncovered] * 3), dst=out)
