"""A reader process' report on a slide beyond its facts, checked; no parser is imported here."""

from collections.abc import Sequence
from dataclasses import dataclass

from encoders.tiling.isolation.reader_protocol import LevelShape
from encoders.types import SlideFacts


@dataclass(frozen=True)
class SlideLevel:
    """A level's size in its own pixels, level-0 pixels per pixel, and (width, height) of its tiles where known."""

    width: int
    height: int
    downsample: float
    tile_size: tuple[int, int] | None


@dataclass(frozen=True)
class Inspection:
    """Shares from 0 to 1: of the slide's area that is tissue, of tissue that lies under pen; the drawing, a PNG."""

    tissue_share: float
    pen_share: float
    overlay_png: bytes | None


def levels_from_reply(shapes: Sequence[LevelShape], facts: SlideFacts) -> tuple[SlideLevel, ...] | None:
    """The levels, finest first; None when they contradict the facts or each other."""
    first = shapes[0]
    if (first.width, first.height, first.downsample) != (facts.width, facts.height, 1.0):
        return None
    if any(level.width > facts.width or level.height > facts.height for level in shapes):
        return None
    return tuple(_level(shape) for shape in shapes)


def _level(shape: LevelShape) -> SlideLevel:
    size = None if shape.tile_width is None or shape.tile_height is None else (shape.tile_width, shape.tile_height)
    return SlideLevel(shape.width, shape.height, shape.downsample, size)
