"""Writes a tiled JPEG pyramid that OpenSlide takes for an Aperio slide. Knows nothing of what is drawn on it.

Work is done tile by tile: one tile and a picture of a sixteenth of the pixels are held, never the slide.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

TILE_PX = 256
# As scanners have it: 1, 4, 16 …; a tile's side is divisible by it.
LEVEL_STEP = 4
# A level whose longer side is at most this is the last one.
LAST_LEVEL_PX = 512
JPEG_QUALITY = 85
# 40× is 0.25 µm/px.
_MAGNIFICATION_MPP = 10.0

Rgb = NDArray[np.uint8]
DrawTile = Callable[[int, int], Rgb]


@dataclass(frozen=True)
class _Slide:
    """What all levels of one slide share; the size is of level 0, in pixels (width, height)."""

    size: tuple[int, int]
    mpp: float
    jpeg_quality: int


def write_pyramid(
    path: Path, draw_tile: DrawTile, *, width_px: int, height_px: int, mpp: float, jpeg_quality: int = JPEG_QUALITY
) -> None:
    """Writes the slide under a temporary name and publishes it at `path` atomically.

    `draw_tile(x, y)` gives uint8 [256, 256, 3], RGB, of the level-0 pixels from (x, y); it is asked once per tile,
    in raster order, also for tiles that reach beyond the right and lower edges.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".slide-", suffix=".svs")
    os.close(descriptor)
    try:
        with tifffile.TiffWriter(temporary, bigtiff=width_px * height_px > 2**31) as tiff:
            _write_levels(tiff, draw_tile, _Slide((width_px, height_px), mpp, jpeg_quality))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_levels(tiff: tifffile.TiffWriter, draw_tile: DrawTile, slide: _Slide) -> None:
    size = slide.size
    reduced = _blank(size[0] // LEVEL_STEP, size[1] // LEVEL_STEP)
    _write_level(tiff, _drawn(draw_tile, size, reduced), size, slide)
    picture = reduced[: size[1] // LEVEL_STEP, : size[0] // LEVEL_STEP]
    while True:
        height, width = picture.shape[:2]
        _write_level(tiff, _tiles_of(picture), (width, height), slide)
        if max(width, height) <= LAST_LEVEL_PX or min(width, height) < LEVEL_STEP:
            return
        smaller = (width // LEVEL_STEP, height // LEVEL_STEP)
        picture = np.asarray(cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _write_level(tiff: tifffile.TiffWriter, tiles: Iterator[Rgb], size: tuple[int, int], slide: _Slide) -> None:
    tiff.write(
        tiles,
        shape=(size[1], size[0], 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",  # of the pixels given; tifffile stores them as YCbCr
        subsampling=(2, 2),
        compression="jpeg",
        compressionargs={"level": slide.jpeg_quality},
        description=_description(size, slide),
        metadata=None,
        software=False,
        maxworkers=1,
    )


def _description(size: tuple[int, int], slide: _Slide) -> str:
    full = slide.size
    scaled = "" if size == full else f" -> {size[0]}x{size[1]}"
    return (
        f"Aperio Image Library v12.0.0\r\n{full[0]}x{full[1]} [0,0 {full[0]}x{full[1]}] ({TILE_PX}x{TILE_PX}){scaled} "
        f"JPEG/YCC Q={slide.jpeg_quality}|AppMag = {_MAGNIFICATION_MPP / slide.mpp:g}|MPP = {slide.mpp:g}"
    )


def _drawn(draw_tile: DrawTile, size: tuple[int, int], reduced: Rgb) -> Iterator[Rgb]:
    """The drawn tiles in raster order; each leaves its quarter-size copy in `reduced` on its way."""
    small = TILE_PX // LEVEL_STEP
    for y in range(0, size[1], TILE_PX):
        for x in range(0, size[0], TILE_PX):
            tile = draw_tile(x, y)
            part = reduced[y // LEVEL_STEP :, x // LEVEL_STEP :][:small, :small]
            part[:] = cv2.resize(tile, (small, small), interpolation=cv2.INTER_AREA)[: part.shape[0], : part.shape[1]]
            yield tile


def _tiles_of(picture: Rgb) -> Iterator[Rgb]:
    for y in range(0, picture.shape[0], TILE_PX):
        for x in range(0, picture.shape[1], TILE_PX):
            tile = _blank(TILE_PX, TILE_PX)
            part = picture[y : y + TILE_PX, x : x + TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _blank(width: int, height: int) -> Rgb:
    return np.full((height, width, 3), 255, dtype=np.uint8)
