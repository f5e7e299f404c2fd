"""Compares a pyramid's levels with level 0, and finds their scale: a few patches of each against the next finer.

A file may hold a macro picture in tiles, levels that were never filled or lie shifted, one of another slide, or sides
padded to whole tiles, which leaves the scale open. OpenSlide takes all of them for levels. Where the small levels show
something, patches lie there; a level is believed when it looks like the finer one at those places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnreadableSlide
from encoders.tiling.slide_readers.level_scales import Size, is_cut_exactly, possible_downsamples

# Of a level, by its number: (number, left, top, width, height) in the level's own pixels. RGB uint8 [height, width, 3]
# on white, and uint8 [height, width], 255 where the file has pixels.
ReadLevel = Callable[[int, int, int, int, int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
Verdict = Literal["same", "other", "nothing to see", "not scanned"]

# A patch, and how far around its place the same texture is looked for, in pixels of the coarser level.
_PATCH_PX, _MARGIN_PX = 40, 12
# A patch is at most so large in the finer level, and as small as that in the coarser one.
_FINER_PX, _LEAST_PATCH_PX = 640, 12
# Levels up to this many pixels are searched whole for places: OpenSlide paints them in 20 ms.
_SEARCHED_PX = 1_500_000
_SEARCHED_LEVELS = 2
# The searched levels are divided into so many rows and columns; each part gives the place with the most texture.
_PARTS = (2, 3)
# Without texture there, places are sought in the coarsest level and in level 0, among so many rows and columns of
# patches; so many places are enough.
_SOUGHT, _ENOUGH = 8, 6
# Visits a grid of 64 without staying long anywhere.
_STRIDE = 27
# Standard deviation of luminance: below this there is nothing to see, above it two pictures can be compared.
_TEXTURE = 8.0
# Correlation of the same place in two levels; area means have 0.98, decimated and strongly compressed levels less.
_SAME_CORRELATION = 0.6
# The same texture must be found no farther off than this, and hardly better elsewhere.
_SAME_PLACE_PX, _BETTER_ELSEWHERE = 1, 0.05
# What is left of both behind a blur must be the same much more exactly: noise, decimation and compression are gone, and
# two blots of tissue alone correlate at 0.8 to 0.9.
_COARSE_SIGMA_PX, _SAME_COARSELY = 3.0, 0.95
# Two patches without texture that differ by this much (of 255) do not show the same.
_OTHER_LUMINANCE = 40.0
# Of a patch in a slide with gaps: this part is enough to compare, pixels that lie beside a gap are not.
_LEAST_COVERED, _WHOLLY = 0.25, 0.999
# One patch in so many may differ: a scanner's low levels have their own faults at seams.
_TOLERATED = 6


@dataclass(frozen=True)
class FoundLevel:
    """A level of the file by its number, its size in its own pixels, its tiles' size where known."""

    number: int
    size: Size
    tile: Size | None


@dataclass(frozen=True)
class Believed:
    """A level to use, with level-0 pixels per pixel."""

    found: FoundLevel
    downsample: float


@dataclass(frozen=True)
class JudgedLevels:
    """Those to use, level 0 first, and those that are not."""

    believed: tuple[Believed, ...]
    refused: tuple[FoundLevel, ...]


def judge_levels(found: Sequence[FoundLevel], read: ReadLevel | None, *, in_false_colors: bool = False) -> JudgedLevels:
    """Every level against the next finer one that is believed.

    A level without any texture to compare is believed when its size alone gives its scale; so are all without `read`.
    In false colours, which hide texture, one whose size leaves a choice of scales must be seen to be the same, and so
    must every one that is coarser than a level that is not believed.
    """
    level0 = found[0]
    scales = {level.number: possible_downsamples(level0.size, level.size, level.tile) for level in found[1:]}
    open_to_doubt = [level for level in found[1:] if scales[level.number]]
    patches = _Patches(read)
    places = _places(level0, open_to_doubt, scales, patches) if open_to_doubt and read else []
    believed = [Believed(level0, 1.0)]
    is_any_other = False
    for level in found[1:]:
        choices = scales[level.number]
        # Behind one that shows something else the next ones may be its own reductions.
        by_size = (len(choices) == 1 or not in_false_colors) and not is_any_other
        downsample = _downsample(level, choices, believed[-1], places, patches, by_size=by_size)
        if downsample is not None:
            believed.append(Believed(level, downsample))
        is_any_other |= downsample is None
    kept = {it.found.number for it in believed}
    return JudgedLevels(tuple(believed), tuple(level for level in found if level.number not in kept))


@dataclass(frozen=True)
class _Patch:
    """Luminance, float32 [height, width], and where it is the file's own and not white for want of pixels, bool."""

    luminance: NDArray[np.float32]
    covered: NDArray[np.bool_]


class _Patches:
    """Patches of levels; None where the file is damaged."""

    def __init__(self, read: ReadLevel | None) -> None:
        self._read = read

    def at(self, level: FoundLevel, left: int, top: int, width: int, height: int) -> _Patch | None:
        assert self._read, "without it there are no places to read at"
        try:
            pixels, alpha = self._read(level.number, left, top, width, height)
        except UnreadableSlide:  # whoever needs that place will say so
            return None
        luminance = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.float32)
        return _Patch(luminance, alpha == 255)


def _places(
    level0: FoundLevel, levels: Sequence[FoundLevel], scales: dict[int, tuple[float, ...]], patches: _Patches
) -> list[tuple[float, float]]:
    """Level-0 (x, y) where small levels have texture; where none has, the coarsest one or level 0."""
    places = []
    small = [level for level in levels if level.size[0] * level.size[1] <= _SEARCHED_PX]
    for level in small[-_SEARCHED_LEVELS:]:
        picture = patches.at(level, 0, 0, *level.size)
        if picture is not None:
            downsample = scales[level.number][0]
            places += [(x * downsample, y * downsample) for x, y in _textured(picture)]
    if not places and not small:
        places = _sought_in(levels[-1], scales[levels[-1].number][0], patches)
    return places or _sought_in(level0, 1.0, patches)


def _textured(picture: _Patch) -> list[tuple[float, float]]:
    """(x, y) of the place with the most texture in each part of the picture, where there is enough of it."""
    height, width = picture.luminance.shape
    window = max(3, min(_PATCH_PX, height // 2, width // 2))
    mean = cv2.blur(picture.luminance, (window, window))
    variance = cv2.blur(picture.luminance * picture.luminance, (window, window)) - mean * mean
    # The border of what was scanned is no texture.
    variance[cv2.blur((~picture.covered).astype(np.float32), (window, window)) > 0] = 0
    found = []
    rows, columns = _PARTS if height <= width else _PARTS[::-1]
    for row in range(rows):
        for column in range(columns):
            top, left = row * height // rows, column * width // columns
            part = variance[top : (row + 1) * height // rows, left : (column + 1) * width // columns]
            if part.size and part.max() > _TEXTURE**2:
                y, x = np.unravel_index(int(part.argmax()), part.shape)
                found.append((float(left + x), float(top + y)))
    return found


def _sought_in(level: FoundLevel, downsample: float, patches: _Patches) -> list[tuple[float, float]]:
    width, height = level.size
    side = min(2 * _PATCH_PX, width, height)
    found: list[tuple[float, float]] = []
    for visit in range(_SOUGHT**2):
        row, column = divmod(visit * _STRIDE % _SOUGHT**2, _SOUGHT)
        x, y = ((2 * at + 1) * full // (2 * _SOUGHT) for at, full in ((column, width), (row, height)))
        patch = patches.at(level, max(0, x - side // 2), max(0, y - side // 2), side, side)
        if patch is not None and patch.covered.mean() >= _LEAST_COVERED and _texture(patch) > _TEXTURE:
            found.append((x * downsample, y * downsample))
        if len(found) == _ENOUGH:
            break
    return found


def _texture(patch: _Patch) -> float:
    return float(patch.luminance[patch.covered].std())


def _downsample(
    level: FoundLevel,
    scales: Sequence[float],
    finer: Believed,
    places: Sequence[tuple[float, float]],
    patches: _Patches,
    *,
    by_size: bool,
) -> float | None:
    """The first of the scales at which the level shows what the finer one shows; None when it shows something else.

    With `by_size` that is the scale that its size gives, where nothing can be seen.
    """
    undecided: float | None = None
    for downsample in scales:
        if downsample < finer.downsample:
            continue
        same = other = gaps = 0
        for place in places:
            verdict = _compare(level, downsample, finer, place, patches)
            same, other = same + (verdict == "same"), other + (verdict == "other")
            gaps += verdict == "not scanned"
            if other * _TOLERATED > len(places) - other:
                break
        if same and other * _TOLERATED <= same:
            return downsample
        # Where there may be something to see that was not scanned, a choice of scales would be a guess.
        is_guess = gaps > 0 and len(scales) > 1
        is_open = by_size and undecided is None and not same and not other and not is_guess
        if is_open and is_cut_exactly(finer.found.size, level.size, downsample):
            undecided = downsample
    return undecided


def _compare(
    level: FoundLevel, downsample: float, finer: Believed, place: tuple[float, float], patches: _Patches
) -> Verdict:
    """Looks for what the finer level shows at a place, in the level around it."""
    ratio = downsample / finer.downsample
    side = max(_LEAST_PATCH_PX, min(_PATCH_PX, int(_FINER_PX / ratio)))
    side = min(side, *level.size)
    # The patch lies on whole pixels of the coarser level, as far inside as possible.
    left, top = (
        min(max(0, round(at / downsample) - side // 2), max(0, reduced - side))
        for at, reduced in zip(place, level.size, strict=True)
    )
    seen = patches.at(level, left - _MARGIN_PX, top - _MARGIN_PX, side + 2 * _MARGIN_PX, side + 2 * _MARGIN_PX)
    finer_left, finer_top, finer_side = round(left * ratio), round(top * ratio), max(1, round(side * ratio))
    shown = patches.at(finer.found, finer_left, finer_top, finer_side, finer_side)
    # What was never scanned may be drawn from other levels in one place and be white in another.
    if seen is None or shown is None:
        return "nothing to see"
    if shown.covered.mean() < _LEAST_COVERED:
        return "not scanned"
    wanted = cv2.resize(shown.luminance, (side, side), interpolation=cv2.INTER_AREA)
    covered = cv2.resize(shown.covered.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) > _WHOLLY
    # The blur below reaches one pixel far.
    compared = np.asarray(cv2.erode(covered.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0)
    return _verdict(_smooth(seen.luminance), _smooth(wanted), compared)


def _smooth(luminance: NDArray[Any]) -> NDArray[np.float32]:
    """Without the noise of compression."""
    return np.asarray(cv2.GaussianBlur(luminance, (3, 3), 0), dtype=np.float32)


def _verdict(seen: NDArray[np.float32], wanted: NDArray[np.float32], compared: NDArray[np.bool_]) -> Verdict:
    """Of a patch `wanted`, which has its pixels where `compared`, in `seen`, which has a margin around it."""
    if not compared.any():
        return "not scanned"
    side = len(wanted)
    here = seen[_MARGIN_PX : _MARGIN_PX + side, _MARGIN_PX : _MARGIN_PX + side][compared]
    if wanted[compared].std() < _TEXTURE:
        differs = here.std() > 2 * _TEXTURE or abs(here.mean() - wanted[compared].mean()) > _OTHER_LUMINANCE
        return "other" if differs else "nothing to see"
    if here.std() < _TEXTURE / 4:
        return "other"
    mask = None if compared.all() else compared.astype(np.float32)
    matches = cv2.matchTemplate(seen, wanted, cv2.TM_CCOEFF_NORMED, mask=mask)
    # A masked search finds no number where the level is of one colour.
    matches = np.where(np.isfinite(matches), matches, -1.0)
    first, last = _MARGIN_PX - _SAME_PLACE_PX, _MARGIN_PX + _SAME_PLACE_PX + 1
    best_here = float(matches[first:last, first:last].max())
    is_same = best_here >= _SAME_CORRELATION and best_here >= float(matches.max()) - _BETTER_ELSEWHERE
    if is_same and mask is None:
        row, column = np.unravel_index(int(matches[first:last, first:last].argmax()), (last - first, last - first))
        there = seen[first + row : first + row + side, first + column : first + column + side]
        is_same = _are_coarsely_the_same(wanted, there)
    return "same" if is_same else "other"


def _are_coarsely_the_same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Also where there is too little to compare behind the blur."""
    first, second = (cv2.GaussianBlur(it, (0, 0), _COARSE_SIGMA_PX).ravel() for it in (one, other))
    if min(float(first.std()), float(second.std())) < _TEXTURE / 2:
        return True
    return float(np.corrcoef(first, second)[0, 1]) >= _SAME_COARSELY
