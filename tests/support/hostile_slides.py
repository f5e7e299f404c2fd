"""Small slides drawn in code, and the ways to make them hostile. Tiles of 64 px, 0.5 µm/px, Aperio style."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import hostile_jpeg as jpeg
import numpy as np
import tiff_draft as tiff
from numpy.typing import NDArray
from tiff_draft import Directory, Field

TILE_PX = 64
SINGLE = "Aperio drawn\r\n|AppMag = 20|MPP = 0.5"
Encode = Callable[[NDArray[np.uint8]], bytes]
Change = Callable[[Directory], Directory]


def picture(width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Something pink with cells in it on white glass: RGB uint8 [h, w, 3], always the same."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:height_px, :width_px]
    radius = np.hypot(x / width_px - 0.5, y / height_px - 0.5)
    cells = 24 * np.sin(x / 5.0) * np.cos(y / 7.0) + random.normal(0, 6, (height_px, width_px))
    tissue = np.stack([205 + cells, 140 + cells, 185 + cells], axis=-1)
    glass = 243 + random.normal(0, 1.2, (height_px, width_px, 1)).repeat(3, axis=-1)
    return np.clip(np.where(radius[..., None] < 0.42, tissue, glass), 0, 255).astype(np.uint8)


def level(
    width_px: int, height_px: int, *, encode: Encode = jpeg.encode, shared_tables: bool = False, is_rgb: bool = False
) -> Directory:
    """An honest level: `picture` in tiles, the outer ones filled up with white."""
    pixels = np.pad(picture(width_px, height_px), ((0, TILE_PX), (0, TILE_PX), (0, 0)), constant_values=255)
    corners = [(x, y) for y in range(0, height_px, TILE_PX) for x in range(0, width_px, TILE_PX)]
    tiles = [encode(np.ascontiguousarray(pixels[y : y + TILE_PX, x : x + TILE_PX])) for x, y in corners]
    tables = jpeg.abbreviate(tiles[0])[0] if shared_tables else b""
    return Directory(
        width_px,
        height_px,
        TILE_PX,
        [jpeg.abbreviate(tile)[1] for tile in tiles] if shared_tables else tiles,
        photometric=tiff.RGB if is_rgb else tiff.YCBCR,
        tables=tables,
        description=f"Aperio drawn\r\n{width_px}x{height_px}|AppMag = 20|MPP = 0.5",
    )


def encode_rgb(pixels: NDArray[np.uint8]) -> bytes:
    """As Aperio's RGB slides have it: components 0, 1, 2 and no marker that says so."""
    return jpeg.encode(pixels, is_rgb=True)


def encode_without_subsampling(pixels: NDArray[np.uint8]) -> bytes:
    """4:4:4."""
    return jpeg.encode(pixels, subsampling="444")


def two_levels() -> list[Directory]:
    """The slide that most recipes spoil: 320 × 256 and 160 × 128 px, every tile with its own tables."""
    return [level(320, 256), level(160, 128)]


def drawn_slides() -> dict[str, bytes]:
    """Whole slides, of each kind that the fast reader takes. (OpenSlide 4.0.1 opens no classic big-endian TIFF.)"""
    shared = [level(300, 230, shared_tables=True), level(150, 115, shared_tables=True)]
    rgb = [level(300, 230, encode=encode_rgb, shared_tables=True, is_rgb=True)]
    unusual = [level(300, 230, encode=jpeg.encode_unusual), level(150, 115, encode=encode_without_subsampling)]
    return {
        "own tables": tiff.write_tiff(two_levels()),
        "shared tables": tiff.write_tiff(shared),
        "RGB without a marker": tiff.write_tiff(rgb),
        "four levels": tiff.write_tiff([level(500, 400), level(250, 200), level(125, 100), level(62, 50)]),
        "BigTIFF": tiff.write_tiff(rgb, big=True),
        "BigTIFF, big-endian": tiff.write_tiff(shared, big=True, order=">"),
        "generic": tiff.write_tiff(generic(shared)),
        "progressive, 4:2:2, 4:4:4": tiff.write_tiff(unusual),
    }


def generic(directories: Sequence[Directory]) -> list[Directory]:
    """The same slide without a vendor: its resolution is in the resolution tags, its lower levels are "reduced"."""
    plain = [replace(directory, description="") for directory in directories]
    reduced = [replace(one, says={**one.says, tiff.SUBFILE_TYPE: Field(tiff.LONG, [1])}) for one in plain[1:]]
    return [plain[0], *reduced]


def spoiled(change: Change, level_index: int = 0) -> Callable[[], bytes]:
    """Makes `two_levels` with one level changed."""

    def make() -> bytes:
        levels = two_levels()
        levels[level_index] = change(levels[level_index])
        return tiff.write_tiff(levels)

    return make


def one_tile(change: Callable[[bytes], bytes], index: int = 7) -> Callable[[], bytes]:
    """Makes `two_levels` with one tile of level 0, in the middle of the tissue, changed."""

    def changed(directory: Directory) -> Directory:
        tiles = list(directory.tiles)
        tiles[index] = change(tiles[index])
        return replace(directory, tiles=tiles)

    return spoiled(changed)


def says(tag: int, kind: int, *values: int, count: int | None = None) -> Change:
    """One tag of a directory says something else."""
    return lambda directory: replace(directory, says={**directory.says, tag: Field(kind, values, count)})


def single_tile(
    side_px: tuple[int, int], tile_px: int, tile: bytes, photometric: int = tiff.YCBCR, compression: int = tiff.JPEG
) -> bytes:
    """A slide of one level, (width, height), that is one tile."""
    width_px, height_px = side_px
    one = Directory(width_px, height_px, tile_px, [tile], photometric, compression, description=SINGLE)
    return tiff.write_tiff([one])


def slow_slide() -> bytes:
    """Valid, 90 kB, 8,192 px a side: one stream for all four tiles, which keeps a decoder busy for a minute."""
    one = Directory(8_192, 8_192, 4_096, [jpeg.slow(4_096)], description=SINGLE)
    return tiff.write_tiff([replace(one, move_offsets=lambda at: at * 4, move_counts=lambda counts: counts * 4)])
