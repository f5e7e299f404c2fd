"""Refuses TIFFs whose finest picture is no upright RGB picture: channels in pages, grey, palettes, inks, turned ones.

OpenSlide paints all of these as if they were a slide in colour: of three pages red, green and blue the first one, in
grey. The pages are not put together here: only OME-XML tells in which order, and scanners of bright field write RGB.
"""

import os
from pathlib import Path

from encoders.errors import UnreadableSlide
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.tiff_levels import TiledImage, read_tiled_images

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, _CMYK = 0, 1, 3, 5
_LAB_LIKE = (8, 9, 10)
_JPEG, _UPRIGHT = 7, 1
# What ExtraSamples calls alpha: associated or not.
_ALPHA = (1, 2)


class UnusableChannels(UnreadableSlide):
    """The file is intact, but is not a picture in red, green and blue of 8 bits each."""


def channels_refusal(path: Path, width: int, height: int) -> UnusableChannels | None:
    """Why the slide is no colour picture, or None; `width` × `height` is the finest level's size."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # whoever reads the slide next says so
    try:
        images = read_tiled_images(file)
    except (NotEligible, UnreadableSlide):
        return None  # only OpenSlide understands its directories
    finally:
        os.close(file)
    finest = [image for image in images if (image.width, image.height) == (width, height)]
    reason = _reason(finest) if finest else None
    return UnusableChannels(f"{reason} Export it as an 8-bit RGB slide of a bright-field stain.") if reason else None


def _reason(finest: list[TiledImage]) -> str | None:
    image = finest[0]
    samples = image.samples
    if image.photometric == _PALETTE:
        return "The slide stores palette indices, not colours."
    if image.photometric == _CMYK:
        return "The slide is stored in CMYK, a printer's colours."
    if image.photometric in _LAB_LIKE:
        return "The slide is stored in L*a*b*, which is not read here."
    if samples < 3 and len(finest) > 1:
        return f"The slide is stored as {len(finest)} grey pages, one for each channel; they are not put together here."
    if samples < 3:
        return "The slide is monochrome: it has one grey channel, and the model was made for stains in colour."
    if samples > 4:
        return f"The slide has {samples} channels, as fluorescence has."
    if samples == 4 and (not image.extra_samples or image.extra_samples[0] not in _ALPHA):
        return "The slide has a fourth channel and does not say what it is."
    if image.orientation != _UPRIGHT and image.compression != _JPEG:  # libtiff turns each tile, not the picture
        return f"The slide's picture is stored turned or mirrored (TIFF's orientation {image.orientation})."
    return None
