"""Which reader a slide gets: the fast one for tiled JPEG TIFFs where it is proven equal, else OpenSlide."""

from dataclasses import dataclass
from pathlib import Path

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.fast_tiff import FastTiffReader
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.reader_kind import ReaderKind, ReaderReason
from encoders.tiling.slide_readers.slide_reader import SlideReader

__all__ = ["ChosenReader", "ReaderKind", "ReaderReason", "open_reader"]


@dataclass(frozen=True)
class ChosenReader:
    """An open slide, which reader serves it, and why that one."""

    reader: SlideReader
    kind: ReaderKind
    reason: ReaderReason


def open_reader(path: Path, limits: ReaderLimits) -> ChosenReader:
    """Opens the slide; raises UnsupportedFormat, UnreadableSlide or SlideTooLarge, as OpenSlideReader does."""
    oracle = OpenSlideReader(path, limits)
    try:
        return ChosenReader(FastTiffReader(path, oracle), "fast_tiff", "eligible")
    except NotEligible as unfit:
        return ChosenReader(oracle, "openslide", unfit.reason)
