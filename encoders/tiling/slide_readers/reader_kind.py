"""The reader of a slide and why it was chosen, in words that the parent knows too, apart from the parsers."""

from typing import Literal

ReaderKind = Literal["fast_tiff", "openslide"]
ReaderReason = Literal[
    "eligible",
    "other_vendor",  # OpenSlide reads it as something else than Aperio or generic TIFF
    "unreadable_directory",  # damaged, or written in a way that only OpenSlide should judge
    "too_many_tiles",
    "levels_do_not_match",  # OpenSlide's levels are not the file's tiled images one to one
    "other_tile_size",
    "other_compression",
    "other_pixel_format",  # not 8-bit RGB or YCbCr, interleaved
    "missing_tiles",  # OpenSlide draws them from other levels
    "other_downsample",  # of a level: not whole, so OpenSlide interpolates between its pixels
    "other_jpeg",  # of another size or colour space than the directory says, or not to be decoded strictly
    "self_check_differs",
]
