"""Slides of which only a part was scanned: tissue on glass, no pixels around, low levels that show a fill there."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from mirax_slide import write_mirax
from numpy.typing import NDArray

GLASS = (239, 235, 232)
TILE_PX = 128
_DOWNSAMPLES = (1, 4, 16)


@dataclass(frozen=True)
class SparseRecipe:
    """Sides in tiles of 128 px at 0.5 µm/px; `scanned` and `tissue` are left, top, right, bottom in the same tiles.

    `fill` is what the lower levels show of what was not scanned; `lost` are tiles that level 0 lacks all the same.
    With `fill_has_bytes` level 0 stores the fill in tiles of their own.
    """

    columns: int = 24
    rows: int = 20
    scanned: tuple[int, int, int, int] = (8, 6, 16, 14)
    tissue: tuple[int, int, int, int] = (10, 8, 13, 11)
    fill: tuple[int, int, int] = (255, 255, 255)
    lost: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill_has_bytes: bool = False


def draw(recipe: SparseRecipe) -> NDArray[np.uint8]:
    """RGB of level 0: textured tissue, noisy glass, the fill."""
    rng = np.random.default_rng(5)
    height, width = recipe.rows * TILE_PX, recipe.columns * TILE_PX
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[...] = recipe.fill
    scanned, tissue = _box(recipe.scanned), _box(recipe.tissue)
    shape = picture[scanned].shape
    picture[scanned] = np.clip(np.array(GLASS) + rng.normal(0, 1, (*shape[:2], 1)), 0, 255).round()
    shape = picture[tissue].shape[:2]
    coarse = rng.normal(0, 18, (shape[0] // 8, shape[1] // 8)).astype(np.float32)
    texture = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)[..., np.newaxis]
    picture[tissue] = np.clip(np.array((200, 140, 185)) + texture, 0, 255).round()
    return picture


def tiles_of_tissue(recipe: SparseRecipe) -> int:
    """How many tiles of 128 px are tissue."""
    left, top, right, bottom = recipe.tissue
    return (right - left) * (bottom - top)


def write_tiff(path: Path, recipe: SparseRecipe, description: str | None = None) -> Path:
    """A TIFF whose level 0 has no bytes where nothing was scanned: generic, unless `description` is Aperio's."""
    picture = draw(recipe)
    with tifffile.TiffWriter(path) as tiff:
        for downsample in _DOWNSAMPLES:
            size = picture.shape[1] // downsample, picture.shape[0] // downsample
            level = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            per_cm = 20_000 / downsample
            tiff.write(
                _encoded(level, recipe, is_level0=downsample == 1),
                shape=level.shape,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(1, 1),
                compression="jpeg",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                description=description,
                subfiletype=0 if downsample == 1 else 1,
                metadata=None,
                software=False,
            )
    return path


def write_aperio(folder: Path, recipe: SparseRecipe) -> Path:
    """The same as Aperio."""
    return write_tiff(folder / "slide.svs", recipe, "Aperio drawn\r\n|AppMag = 20|MPP = 0.5")


def write_as_mirax(folder: Path, recipe: SparseRecipe) -> Path:
    """The same as MIRAX; sides must be whole at 1/16."""
    picture = draw(recipe)
    sizes = [(picture.shape[1] >> step, picture.shape[0] >> step) for step in range(5)]
    levels = [np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8) for size in sizes]
    missing = {
        (row, column) for row, column in np.ndindex(recipe.rows, recipe.columns) if _is_missing(recipe, row, column)
    }
    return write_mirax(folder, levels, TILE_PX, 0.5, missing)


def _encoded(level: NDArray[np.uint8], recipe: SparseRecipe, *, is_level0: bool):  # type: ignore[no-untyped-def]
    full = np.pad(level, ((0, -level.shape[0] % TILE_PX), (0, -level.shape[1] % TILE_PX), (0, 0)), mode="edge")
    for row, column in np.ndindex(full.shape[0] // TILE_PX, full.shape[1] // TILE_PX):
        if is_level0 and _is_missing(recipe, row, column):
            yield b""
            continue
        tile = full[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
        yield bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=92, subsampling="444"))


def _is_missing(recipe: SparseRecipe, row: int, column: int) -> bool:
    if _holds(recipe.lost, row, column):
        return True
    return not recipe.fill_has_bytes and not _holds(recipe.scanned, row, column)


def _holds(box: tuple[int, int, int, int], row: int, column: int) -> bool:
    left, top, right, bottom = box
    return left <= column < right and top <= row < bottom


def _box(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    left, top, right, bottom = (side * TILE_PX for side in box)
    return np.s_[top:bottom, left:right]
