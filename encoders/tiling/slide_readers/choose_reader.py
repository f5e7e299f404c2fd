"""Chooses a slide's reader: the fast one for tiled JPEG TIFFs where it is proven equal, else OpenSlide."""

from dataclasses import dataclass
from pathlib import Path

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.container_colors import check_container_colors
from encoders.tiling.slide_readers.fast_tiff import FastTiffReader
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.reader_kind import ReaderKind, ReaderReason
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.slide_readers.tiff_channels import channels_refusal

__all__ = ["ChosenReader", "ReaderKind", "ReaderReason", "open_reader"]


@dataclass(frozen=True)
class ChosenReader:
    """An open slide, which reader serves it, and why that one."""

    reader: SlideReader
    kind: ReaderKind
    reason: ReaderReason


def open_reader(path: Path, limits: ReaderLimits) -> ChosenReader:
    """Opens the slide; raises UnsupportedFormat, UnreadableSlide or SlideTooLarge, as OpenSlideReader does.

    Also refused, as UnreadableSlide, is what OpenSlide would read in wrong colours, or as a slide of one channel.
    """
    oracle = OpenSlideReader(path, limits)
    try:
        return ChosenReader(FastTiffReader(path, oracle), "fast_tiff", "eligible")
    except NotEligible as unfit:
        oracle.refusal = channels_refusal(path, oracle.facts.width, oracle.facts.height)
        if oracle.refusal is not None and oracle.facts.mpp is not None:
            raise oracle.refusal from None
        check_container_colors(path, oracle.facts.vendor)
        return ChosenReader(oracle, "openslide", unfit.reason)
