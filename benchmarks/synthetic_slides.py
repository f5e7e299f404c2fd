"""Seeded synthetic slides to measure on, as large as real ones; the same recipe always gives the same pixels.

    python -m benchmarks.synthetic_slides s420 t240 --folder data/benchmarks

One tile is worked on at a time, never a block; what is held is the lower levels' compressed tiles.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
import tifffile

from benchmarks.jpeg_streams import encode_tile
from benchmarks.lower_levels import Glass, LowerLevel, chain
from benchmarks.slide_recipes import RECIPES, SlideRecipe
from benchmarks.tissue_field import TissueField
from benchmarks.tissue_torus import Rgb, draw_tissue_torus

FOLDER = Path("data/benchmarks")
# Change it when the same recipe gives other pixels: kept slides are drawn again then.
_GENERATOR = 1
_MAGNIFICATION_MPP = 10.0


def synthetic_slide(name: str, folder: Path) -> Path:
    """The slide of this name, drawn now unless the folder has it already."""
    recipe = RECIPES[name]
    path = folder / f"{name}-{_digest(recipe)}.{'svs' if recipe.is_aperio else 'tiff'}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_slide(path, recipe)
    return path


def write_slide(path: Path, recipe: SlideRecipe) -> None:
    """Writes the slide under a temporary name and publishes it at `path` atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tifffile.TiffWriter(temporary, bigtiff=recipe.width_px * recipe.height_px > 2**31) as tiff:
            _write_levels(tiff, recipe)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_levels(tiff: tifffile.TiffWriter, recipe: SlideRecipe) -> None:
    glass = Glass(recipe)
    lower = LowerLevel(recipe, glass, recipe.steps, recipe.columns, recipe.rows)
    _write_level(tiff, _drawn(recipe, glass, lower), recipe.columns, glass.tables, recipe, 1)
    downsample = 1
    for step, level in zip(recipe.steps, chain(lower), strict=True):
        downsample *= step
        _write_level(tiff, iter(level.encoded), level.columns, glass.tables, recipe, downsample)


def _drawn(recipe: SlideRecipe, glass: Glass, lower: LowerLevel) -> Iterator[bytes]:
    """The encoded tiles of level 0 in raster order; the levels below get their pixels on the way."""
    field, torus = TissueField(recipe), draw_tissue_torus(recipe.seed, recipe.tile_px)
    side = recipe.tile_px
    for row, column in np.ndindex(recipe.rows, recipe.columns):
        if not field.some[row, column]:
            lower.put(row, column, None)
            yield glass.encoded(row, column)
            continue
        tile = torus.tile(column * side, row * side, side, side)
        if not field.all[row, column]:
            tile = _blended(tile, glass.pixels(row, column), field.alpha(row, column))
        lower.put(row, column, tile)
        yield encode_tile(tile, recipe.coding).tile


def _blended(tissue: Rgb, glass: Rgb, alpha: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Rgb:
    return np.asarray(np.round(tissue * alpha + glass * (1 - alpha)), dtype=np.uint8)


def _write_level(
    tiff: tifffile.TiffWriter,
    tiles: Iterator[bytes],
    columns: int,
    tables: bytes,
    recipe: SlideRecipe,
    downsample: int,
) -> None:
    size = recipe.width_px // downsample, recipe.height_px // downsample
    side = recipe.tile_px
    # Rounding the size down can leave the last column or row of tiles without a pixel.
    kept_columns, kept_rows = (-(-pixels // side) for pixels in size)
    tiff.write(
        (tile for index, tile in enumerate(tiles) if index % columns < kept_columns and index // columns < kept_rows),
        shape=(size[1], size[0], 3),
        dtype=np.uint8,
        tile=(side, side),
        compression="jpeg",
        jpegtables=tables,
        subfiletype=0 if downsample == 1 else 1,
        metadata=None,
        software=False,
        **_colour(recipe),
        **_origin(recipe, size, downsample),
    )


def _colour(recipe: SlideRecipe) -> dict[str, Any]:
    if not recipe.coding.is_rgb:
        return {"photometric": "ycbcr", "subsampling": (2, 2)}
    # Unless it is told the colour space, tifffile tags RGB as YCbCr, and the slide is magenta.
    return {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}


def _origin(recipe: SlideRecipe, size: tuple[int, int], downsample: int) -> dict[str, Any]:
    """How µm/px are told: in Aperio's description, or as pixels per cm."""
    if recipe.is_aperio:
        return {"description": _description(recipe, size)}
    per_cm = 10_000 / (recipe.mpp * downsample)
    return {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}


def _description(recipe: SlideRecipe, size: tuple[int, int]) -> str:
    full = recipe.width_px, recipe.height_px
    scaled = "" if size == full else f" -> {size[0]}x{size[1]}"
    colour = "RGB" if recipe.coding.is_rgb else "YCC"
    return (
        f"Aperio Image Library v12.0.0\r\n{full[0]}x{full[1]} [0,0 {full[0]}x{full[1]}] "
        f"({recipe.tile_px}x{recipe.tile_px}){scaled} JPEG/{colour} Q={recipe.coding.quality}"
        f"|AppMag = {_MAGNIFICATION_MPP / recipe.mpp:g}|MPP = {recipe.mpp:g}"
    )


def _digest(recipe: SlideRecipe) -> str:
    made_by = [_GENERATOR, tifffile.__version__, simplejpeg.__version__, imagecodecs.__version__]
    return hashlib.sha256(json.dumps([asdict(recipe), made_by]).encode()).hexdigest()[:8]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw slides and say what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in options.names:
        path, tissue = synthetic_slide(name, options.folder), TissueField(RECIPES[name]).some
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {tissue.sum()} of {tissue.size} tiles with tissue")


if __name__ == "__main__":
    main()
