"""The border to OpenSlide: its errors become ours here, and of its properties only the allow-listed are ever read.

Runs in the reader process only. Coordinates are level-0 pixels, x to the right, y down.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from openslide import lowlevel

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat
from encoders.tiling.dicom_head import OPTICAL_PATHS, level_heads
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.resolution import StatedResolution, judge_resolution
from encoders.tiling.slide_readers.believed_levels import FoundLevel, JudgedLevels, ReadLevel, judge_levels
from encoders.tiling.slide_readers.container_colors import contradicts_in_sample
from encoders.tiling.slide_readers.jpeg_tiles import UndecodableTile
from encoders.tiling.slide_readers.leica_areas import paint_by_area, parts_of_areas, scanned_areas
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.paint_region import Where, at_own_pixel, paint
from encoders.tiling.slide_readers.reduce_region import ReducesByArea
from encoders.tiling.slide_readers.slide_reader import MAX_HOLE_SHARE, Level, cut_off, damaged, not_scanned
from encoders.tiling.slide_readers.stored_level import StoredLevel
from encoders.tiling.slide_readers.tiff_directory import is_truncated_tiff
from encoders.tiling.slide_readers.tiff_levels import TiledImage, read_tiled_images
from encoders.tiling.slide_readers.whole_tiles import require_whole_tiles
from encoders.tiling.slide_readers.why_unusable import (
    SEVERAL_PATHS,
    reason_said,
    require_full_size_in_tiles,
    require_usable_samples,
    unopenable,
    why_not_opened,
    why_unsupported,
)
from encoders.types import SlideFacts, SlideWarning

MAX_OBJECTIVE_POWER = 400.0
# What OpenSlide reads by TIFF's own tags alone.
PLAIN_TIFF = ("aperio", "generic-tiff")
# Hamamatsu's tiles are rows between restart markers; sides are never padded to them.
_WITHOUT_PADDING = ("hamamatsu",)
# OpenSlide decodes whole tiles and keeps none beyond its 32 MB cache: a slide in one tile of 16,000² px takes 2 GB per
# thread, once for every region. Scanners write tiles of up to 1,024 px in TIFF.
MAX_TIFF_TILE_PX = 4_096**2
# NDPI and DICOM may hold a small level in a single tile.
MAX_TILE_PX = 4 * MAX_TIFF_TILE_PX
# Half of a pixel: at the borders of what was scanned OpenSlide blends where tiles lie between two pixels.
_COVERED_ALPHA = 128
_COLORS = 3
# Of the slide's area: a label or a macro stored in tiles is smaller.
_LARGE_SHARE = 0.25
# Tiles of each level whose heads are looked at on opening, which takes some milliseconds.
_SAMPLED_HEADS = 512


class OpenSlideReader(ReducesByArea):
    """SlideReader over OpenSlide, without PIL: raw premultiplied BGRA composited on white.

    `levels` are those that are believed (`believed_levels`); what was left out is a warning in `facts`. `tile_sizes` is
    (width, height) per level, or None where OpenSlide does not know it; `painted_downsamples` is what OpenSlide divides
    positions by, the mean ratio of the sides, where `levels` has the scale that is meant. Positions are converted.
    """

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        """Opens the slide; raises UnsupportedFormat, UnreadableSlide or SlideTooLarge."""
        self._path = path
        self._handle = _open(path)
        require_usable_samples(path)
        try:
            _require_one_optical_path(self._handle, path)
            sizes = _level_sizes(self._handle, limits)
            facts = _facts(self._handle, sizes[0])
            found = [
                FoundLevel(number, size, _tile_size(self._handle, number, facts.vendor))
                for number, size in enumerate(sizes)
            ]
            painted = [lowlevel.get_level_downsample(self._handle, level.number) for level in found]
        except openslide.OpenSlideError:
            raise unopenable() from None
        if facts.vendor == "generic-tiff":
            require_full_size_in_tiles(path)
        # Raised by every read: a fault that a slide without a stated resolution may keep to itself until it is asked.
        self.refusal: UnreadableSlide | None = None
        self._vendor = facts.vendor
        self._areas = scanned_areas(self._handle) if facts.vendor == "leica" else ()
        redrawn = frozenset(self._redrawn(len(found)))
        # In false colours, as OpenSlide shows them, levels cannot be compared.
        others = (*self._other_pictures(sizes), *_finest_missing(self._handle))
        self._stored = dict(self._stored_levels(range(len(found)) if self.denies_colors else redrawn))
        judged = self._judge(found, painted)
        numbers = frozenset(it.found.number for it in judged.believed)
        unseen = self._unseen_gaps() if (redrawn & numbers) - self._stored.keys() else ()
        self.facts = replace(facts, warnings=(*facts.warnings, *others, *_refused(judged.refused), *unseen))
        self.levels = tuple(
            Level(*it.found.size, it.downsample, it.found.number not in redrawn) for it in judged.believed
        )
        self.tile_sizes = tuple(found[it.found.number].tile for it in judged.believed)
        self.painted_downsamples = tuple(painted[it.found.number] for it in judged.believed)
        self._numbers = tuple(it.found.number for it in judged.believed)

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """See SlideReader."""
        if out is None:
            out = np.empty((height, width, 3), dtype=np.uint8)
        alpha = self._read(x, y, level, out)
        if alpha is not None:
            inside = alpha[self._inside(x, y, level, height, width)]
            if inside.size and (inside < _COVERED_ALPHA).mean() > MAX_HOLE_SHARE:
                side = self.levels[level].downsample
                raise not_scanned(self.facts, x, y, math.ceil(width * side), math.ceil(height * side))
        return out

    def read_covered(
        self, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """See SlideReader."""
        stored = self._stored.get(self._numbers[level])
        if stored is not None and self.refusal is None:
            return self._read_stored(stored, x, y, level, width, height)
        return self._read_painted(x, y, level, width, height)

    def empty_tiles(self, level: int) -> NDArray[np.bool_] | None:
        """See SlideReader; known of TIFF alone."""
        if not self.levels[level].is_exact:
            return None
        try:
            images = self.tiled_images
        except NotEligible:
            return None
        shape = self.levels[level].width, self.levels[level].height, self.tile_sizes[level]
        found = [
            image for image in images if (image.width, image.height, (image.tile_width, image.tile_height)) == shape
        ]
        return found[0].byte_counts == 0 if len(found) == 1 else None

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        """OpenSlide does not tell."""
        return None

    @cached_property
    def tiled_images(self) -> tuple[TiledImage, ...]:
        """The file's own directory; raises NotEligible where it is none that OpenSlide reads as plain TIFF or cannot be
        read, UnreadableSlide when a tile lies beyond the file, and UnsupportedFormat where tiles are not whole."""
        if self._vendor not in PLAIN_TIFF:
            raise NotEligible("other_vendor")
        with self._path.open("rb") as file:
            images = read_tiled_images(file.fileno())
            require_whole_tiles(file.fileno(), images)
            return images

    @cached_property
    def denies_colors(self) -> bool:
        """Whether tiles of a plain TIFF, of some that are looked at, say that they have other colours than it says.

        OpenSlide reads them in false colours. False where `tiled_images` has none.
        """
        try:
            images = self.tiled_images
        except (NotEligible, UnreadableSlide):
            return False
        with self._path.open("rb") as file:
            return any(contradicts_in_sample(file.fileno(), image, _SAMPLED_HEADS) for image in images)

    def _judge(self, found: list[FoundLevel], painted: Sequence[float]) -> JudgedLevels:
        read: ReadLevel | None = partial(self._read_own_pixels, painted)
        try:
            if self._vendor in PLAIN_TIFF:
                _ = self.tiled_images
        except NotEligible:  # OpenSlide might allocate what such a directory claims, or abort, for no more than a look
            read = None
        are_false = read is not None and self.denies_colors and len(self._stored) < len(found)
        if self._vendor in _WITHOUT_PADDING:
            found = [replace(level, tile=None) for level in found]
        return judge_levels(found, read, in_false_colors=are_false)

    def _other_pictures(self, sizes: Sequence[tuple[int, int]]) -> Iterator[SlideWarning]:
        """Large pictures in colour that are no levels: another series, another focal plane. Raises UnsupportedFormat
        where one is larger than the finest level, which then is none."""
        try:
            images = [(image.width, image.height) for image in self.tiled_images if image.samples >= _COLORS]
        except (NotEligible, UnreadableSlide):
            return
        width, height = sizes[0]
        if any(size[0] > width and size[1] > height for size in images):
            raise UnsupportedFormat(
                "The file holds a larger picture than the one that it marks as its finest level. Export it again as a "
                "pyramidal TIFF that begins with the full-size picture, or send the scanner's original file."
            )
        least = width * height * _LARGE_SHARE
        others = sum(size not in sizes and size[0] * size[1] >= least for size in images)
        others += max(0, images.count((width, height)) - 1)
        if others:
            yield SlideWarning(
                "pictures_not_read",
                f"The file holds {others} more large pictures that are no levels of the slide, such as other scans or "
                "focal planes; only the first picture is read. Export each as a slide of its own.",
            )

    def _redrawn(self, count: int) -> Iterator[int]:
        """The numbers of `count` levels that OpenSlide draws anew around gaps; see `stored_level`."""
        if self._vendor == "aperio":
            with suppress(NotEligible):
                gaps = [bool((image.byte_counts == 0).any()) for image in self.tiled_images]
                if len(gaps) != count:  # which level is which is not known
                    gaps = [any(gaps)] * count
                yield from (number for number in range(1, count) if any(gaps[: number + 1]))

    def _stored_levels(self, numbers: Iterable[int]) -> Iterator[tuple[int, StoredLevel]]:
        """Those of them that can be read as they are stored, in the colours that their tiles say."""
        for number in numbers:
            size = lowlevel.get_level_dimensions(self._handle, number)
            images = [image for image in self.tiled_images if (image.width, image.height) == size]
            if len(images) == 1:
                with suppress(NotEligible, OSError):
                    yield number, StoredLevel(self._path, images[0])

    def _read_painted(
        self, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        out = np.empty((height, width, 3), dtype=np.uint8)
        alpha = self._read(x, y, level, out)
        return out, None if alpha is None else np.asarray(alpha >= _COVERED_ALPHA, dtype=np.bool_)

    def _read_stored(
        self, stored: StoredLevel, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Where the level has no tile of its own, what OpenSlide draws from a finer one."""
        side = self.levels[level].downsample
        try:
            pixels, covered = stored.read(round(x / side), round(y / side), width, height)
        except UndecodableTile:
            raise damaged(self.facts, x, y, math.ceil(width * side), math.ceil(height * side)) from None
        if covered.all():
            return pixels, None
        painted, has_pixels = self._read_painted(x, y, level, width, height)
        pixels[~covered] = painted[~covered]
        covered = np.ones_like(covered) if has_pixels is None else covered | has_pixels
        return pixels, None if covered.all() else covered

    def _unseen_gaps(self) -> Iterator[SlideWarning]:
        empty = sum(int((image.byte_counts == 0).sum()) for image in self.tiled_images)
        yield SlideWarning(
            "levels_drawn_from_finer",
            f"{empty} tiles of the file have no pixels, and whether tissue lies there cannot be seen: around them "
            "small levels are drawn from the full-size picture. Look at the thumbnail, or send a complete export.",
        )

    def _read(self, x: int, y: int, level: int, out: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Fills `out`; alpha of the region where it is not 255 throughout."""
        if self.refusal is not None:
            raise self.refusal
        try:
            alpha = self._paint(self._handle, x, y, level, out)
        except openslide.OpenSlideError:
            alpha = self._read_again(x, y, level, out)
        return None if alpha.min() == 255 else alpha

    def _paint(
        self, handle: lowlevel._OpenSlide, x: int, y: int, level: int, out: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Fills `out` from level-0 (x, y) on, as OpenSlide has to be asked for it; alpha of all of it."""
        meant, painted, number = self.levels[level].downsample, self.painted_downsamples[level], self._numbers[level]
        if meant == painted:
            return paint(handle, Where(number, x, y), out)
        (column, x_rest), (row, y_rest) = divmod(x, meant), divmod(y, meant)
        if x_rest or y_rest:  # between two pixels of the level: the nearest position that can be asked for
            return paint(handle, Where(number, round(x / meant * painted), round(y / meant * painted)), out)
        parts = parts_of_areas(self._areas, x, y, meant, out.shape[:2])
        if any(part.begins_right or part.begins_below for part in parts):
            return paint_by_area(handle, number, (column * painted, row * painted), parts, out)
        return paint(handle, self._at_own_pixel(number, painted, int(column), int(row)), out)

    def _inside(self, x: int, y: int, level: int, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of a region that lie in the slide."""
        downsample = self.levels[level].downsample
        sides = (y, height, self.facts.height), (x, width, self.facts.width)
        rows, columns = (
            slice(max(0, math.ceil(-start / downsample)), max(0, min(count, math.floor((side - start) / downsample))))
            for start, count, side in sides
        )
        return rows, columns

    def _at_own_pixel(self, number: int, painted: float, left: int, top: int) -> Where:
        """See `at_own_pixel`. In Leica's slides OpenSlide drops what is left over of a pixel."""
        if self._areas:
            return Where(number, math.ceil(left * painted), math.ceil(top * painted))
        return at_own_pixel(number, painted, left, top)

    def _read_own_pixels(
        self, painted: Sequence[float], number: int, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A `ReadLevel`; raises UnreadableSlide."""
        out = np.empty((height, width, 3), dtype=np.uint8)
        where = self._at_own_pixel(number, painted[number], left, top)
        try:
            alpha = paint(self._handle, where, out)
            if number in self._stored:
                pixels, covered = self._stored[number].read(left, top, width, height)
                out[covered], alpha[covered] = pixels[covered], 255
        except openslide.OpenSlideError:
            self._handle = _open(self._path)
            raise unopenable() from None
        except UndecodableTile:
            raise unopenable() from None
        return out, alpha

    def _read_again(self, x: int, y: int, level: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """After an error a handle is dead for every later read, so the fault may be another thread's tile."""
        fresh = _open(self._path)
        try:
            alpha = self._paint(fresh, x, y, level, out)
        except openslide.OpenSlideError as error:
            if reason := reason_said(str(error)):
                raise UnsupportedFormat(reason) from None
            side, (height, width) = self.levels[level].downsample, out.shape[:2]
            raise damaged(self.facts, x, y, math.ceil(width * side), math.ceil(height * side)) from None
        # The dead handle is closed when the last thread that reads through it lets go of it.
        self._handle = fresh
        return alpha


def _open(path: Path) -> lowlevel._OpenSlide:
    if not path.is_file():
        raise UnreadableSlide("The slide's file is not there any more; upload it again.")
    try:
        return lowlevel.open(path)
    except openslide.OpenSlideUnsupportedFormatError:
        if is_truncated_tiff(path):
            raise cut_off() from None
        raise why_unsupported(path) from None
    except openslide.OpenSlideError as error:
        raise why_not_opened(path, str(error)) from None


def _require_one_optical_path(handle: lowlevel._OpenSlide, path: Path) -> None:
    """Raises UnsupportedFormat for DICOM with more, in any of its levels: OpenSlide shows the frames of the first and
    says nothing, and its properties are those of the finest level."""
    if lowlevel.get_property_value(handle, openslide.PROPERTY_NAME_VENDOR) != "dicom":
        return
    stated = _number(handle, "dicom.NumberOfOpticalPaths") or 0
    second = "dicom.OpticalPathSequence[1]."
    has_more = stated > 1 or any(name.startswith(second) for name in lowlevel.get_property_names(handle))
    if has_more or any(int(head.get(OPTICAL_PATHS, 1)) > 1 for head in level_heads(path)):
        raise UnsupportedFormat(SEVERAL_PATHS)


def _finest_missing(handle: lowlevel._OpenSlide) -> Iterator[SlideWarning]:
    """Of DICOM whose finest level says that it was made from a finer one."""
    if lowlevel.get_property_value(handle, "dicom.ImageType[3]") == "RESAMPLED":
        yield SlideWarning(
            "finest_level_missing",
            "The finest file of the series says that it was made from a finer one, which is missing. Send all files of "
            "the series, or take what is here as it is.",
        )


def _level_sizes(handle: lowlevel._OpenSlide, limits: ReaderLimits) -> list[tuple[int, int]]:
    count = lowlevel.get_level_count(handle)
    if count > limits.max_levels:
        raise SlideTooLarge(
            f"The slide has {count} levels; at most {limits.max_levels} are read. Export it again with fewer."
        )
    sizes = [lowlevel.get_level_dimensions(handle, level) for level in range(count)]
    if not sizes or min(min(size) for size in sizes) < 1:
        raise unopenable()
    if max(sizes[0]) > limits.max_dimension_px:
        raise SlideTooLarge(
            f"The slide is {sizes[0][0]} × {sizes[0][1]} px; at most {limits.max_dimension_px} px a side are read. "
            "Send a part of it, or ask the operator to raise EYEPIECE_MAX_SLIDE_DIMENSION_PX."
        )
    return sizes


def _refused(levels: Sequence[FoundLevel]) -> Iterator[SlideWarning]:
    for level in levels:
        detail = (
            f"A level of {level.size[0]} × {level.size[1]} px does not show what the full-size picture shows, at any "
            "scale that its size allows; it is not used."
        )
        yield SlideWarning("level_not_believed", detail)


def _tile_size(handle: lowlevel._OpenSlide, level: int, vendor: str) -> tuple[int, int] | None:
    width, height = (_number(handle, f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
    if width is None or height is None:
        return None
    max_px = MAX_TIFF_TILE_PX if vendor in PLAIN_TIFF else MAX_TILE_PX
    if width * height > max_px:
        raise SlideTooLarge(
            f"The slide is stored in tiles of {width:.0f} × {height:.0f} px; at most {max_px} px a tile are "
            "read. Save it again in smaller tiles, for instance of 256 × 256 px."
        )
    return int(width), int(height)


def _facts(handle: lowlevel._OpenSlide, size: tuple[int, int]) -> SlideFacts:
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
        size,
        _volume_mm(handle),
    )
    mpp, warnings = judge_resolution(said)
    return SlideFacts(vendor, *size, mpp, power, warnings)


def _volume_mm(handle: lowlevel._OpenSlide) -> tuple[float, float] | None:
    """What level 0 shows of the glass, by DICOM."""
    width, height = (_number(handle, f"dicom.ImagedVolume{side}") for side in ("Width", "Height"))
    return (width, height) if width and height else None


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
