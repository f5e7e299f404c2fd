"""A level's possible downsamples, judged by sizes alone. Levels that scanners pad to whole tiles look too large."""

import math

Size = tuple[int, int]

# Levels of one tile could be any coarser one; no pyramid goes further.
_COARSEST = 1_024
# Each is compared with the picture, which costs some milliseconds.
_TRIED = 16
_POWERS_OF_THREE = (3, 9, 27, 81, 243)
# Sizes of levels are cut or rounded, at each halving anew.
_ROUNDED_PX = 2


def possible_downsamples(full: Size, level: Size, tile: Size | None) -> tuple[float, ...]:
    """Level-0 pixels per pixel of `level`, likeliest first; sizes are (width, height). None where no scale fits both.

    A whole number if that gives these sizes but for a cut pixel; then the whole numbers that give them when sides are
    padded to whole tiles (`ceil(side / d / tile) · tile`), powers of two first; then the mean ratio of the sides if
    they agree on one. OpenSlide knows only the mean: 2.0003 for 2967 → 1483, 1.83 for sides padded from 1280 to 1536.
    """
    ratio = mean_ratio(full, level)
    whole = max(1, round(ratio))
    is_whole = _is_exact(full, level, whole)
    found = [float(whole)] if is_whole else []
    if tile is not None:
        found += [float(d) for d in _padded(full, level, tile) if d not in found]
    if not is_whole and _sides_agree(full, level):
        found.append(ratio)
    return tuple(found)


def is_cut_exactly(full: Size, level: Size, downsample: float) -> bool:
    """Whether the level is level 0 at that scale with nothing added, so that sizes alone say it."""
    return all(abs(side / downsample - reduced) <= _ROUNDED_PX for side, reduced in zip(full, level, strict=True))


def mean_ratio(full: Size, level: Size) -> float:
    """What OpenSlide takes for the downsample."""
    return (full[0] / level[0] + full[1] / level[1]) / 2


def _is_exact(full: Size, level: Size, whole: int) -> bool:
    return all(abs(side / whole - reduced) < 1 for side, reduced in zip(full, level, strict=True))


def _padded(full: Size, level: Size, tile: Size) -> list[int]:
    sides = list(zip(full, level, tile, strict=True))
    first = max(2, math.floor(max(side / reduced for side, reduced, _ in sides)))
    last = min(_COARSEST, max(full) // 2)
    fitting = [d for d in range(first, last + 1) if all(_is_padded(*side, d) for side in sides)]
    return sorted(fitting, key=lambda d: (d.bit_count() != 1, d not in _POWERS_OF_THREE, d))[:_TRIED]


def _is_padded(side: int, reduced: int, tile: int, downsample: int) -> bool:
    exact = abs(side / downsample - reduced) < 1
    return exact or reduced in {-(-part // tile) * tile for part in (side // downsample, -(-side // downsample))}


def _sides_agree(full: Size, level: Size) -> bool:
    """Whether one ratio explains both sides."""
    lowest = max(side / (reduced + _ROUNDED_PX) for side, reduced in zip(full, level, strict=True))
    highest = min(side / max(0.5, reduced - _ROUNDED_PX) for side, reduced in zip(full, level, strict=True))
    return lowest <= highest
