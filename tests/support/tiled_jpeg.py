"""Slides of JPEG tiles as tifffile writes them, in any colour space, tile size, pyramid and way of keeping tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from hostile_jpeg import abbreviate, encode
from numpy.typing import NDArray

APERIO = "Aperio drawn\r\n|AppMag = 20|MPP = 0.5"


@dataclass(frozen=True)
class Recipe:
    """Sizes are (width, height) of each level, finest first."""

    sizes: tuple[tuple[int, int], ...] = ((700, 500),)
    tile_px: int = 128
    subsampling: str = "420"
    is_rgb: bool = False
    shared_tables: bool = True
    optimize: bool = False
    big: bool = False
    description: str | None = APERIO


def draw(width: int, height: int) -> NDArray[np.uint8]:
    """Noisy, colourful, blank below the diagonal: RGB uint8 [height, width, 3], always the same."""
    noise = np.random.default_rng(11).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 1.2)
    y, x = np.mgrid[:height, :width]
    picture[y * width > x * height + 0.6 * width * height] = 243
    return np.asarray(picture, dtype=np.uint8)


def draw_level(full: tuple[int, int], width: int, height: int) -> NDArray[np.uint8]:
    """The picture of that full size, reduced: a level that shows something else is not believed."""
    picture = draw(*full)
    return picture if full == (width, height) else cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def write_slide(path: Path, recipe: Recipe) -> Path:
    """Writes the slide and returns its path."""
    tables = abbreviate(_encode(np.zeros((16, 16, 3), np.uint8), recipe))[0] if recipe.shared_tables else None
    with tifffile.TiffWriter(path, bigtiff=recipe.big) as tiff:
        for index, (width, height) in enumerate(recipe.sizes):
            tiff.write(
                _tiles(width, height, recipe),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(recipe.tile_px, recipe.tile_px),
                photometric="rgb" if recipe.is_rgb else "ycbcr",
                subsampling=None if recipe.is_rgb else (2, 2),
                compression="jpeg",
                compressionargs={"outcolorspace": "rgb"} if recipe.is_rgb else None,
                jpegtables=tables,
                description=recipe.description,
                subfiletype=1 if index else 0,
                metadata=None,
                software=False,
            )
    return path


def _tiles(width: int, height: int, recipe: Recipe) -> Iterator[bytes]:
    side = recipe.tile_px
    # What lies beyond the image is compressed too, and must never be seen.
    pixels = np.pad(draw_level(recipe.sizes[0], width, height), ((0, side), (0, side), (0, 0)), constant_values=77)
    for y in range(0, height, side):
        for x in range(0, width, side):
            stream = _encode(np.ascontiguousarray(pixels[y : y + side, x : x + side]), recipe)
            yield abbreviate(stream)[1] if recipe.shared_tables else stream


def _encode(pixels: NDArray[np.uint8], recipe: Recipe) -> bytes:
    """RGB as Aperio has it: no marker says so, and a decoder that is not told takes it for YCbCr."""
    return encode(pixels, is_rgb=recipe.is_rgb, subsampling=recipe.subsampling, optimize=recipe.optimize)
