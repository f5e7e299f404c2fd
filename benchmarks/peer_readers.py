"""Other libraries that read regions of slides, each as a function; those that are not installed are left out."""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from benchmarks.compressed_level import tiled_pages
from encoders.types import TilePlan

Rgb = NDArray[np.uint8]
# Level-0 (x, y), level, side in pixels of that level → RGB uint8 [side, side, 3].
ReadRegion = Callable[[int, int, int, int], Rgb]

# Read when libvips starts: one thread, as everybody else here.
os.environ.setdefault("VIPS_CONCURRENCY", "1")


def openslide_pil(path: Path) -> ReadRegion:
    """OpenSlide as most code calls it: a PIL image, converted to RGB, as an array."""
    slide = openslide.OpenSlide(path)

    def read(x: int, y: int, level: int, side: int) -> Rgb:
        return np.asarray(slide.read_region((x, y), level, (side, side)).convert("RGB"))

    return read


def halved_by_pil(path: Path, plan: TilePlan) -> Callable[[int, int], Rgb]:
    """OpenSlide and PIL alone, by PIL's exact mean; most code takes its bicubic filter, ten times slower."""
    slide = openslide.OpenSlide(path)

    def tile(x: int, y: int) -> Rgb:
        return np.asarray(slide.read_region((x, y), plan.level, (plan.read_px,) * 2).convert("RGB").reduce(2))

    return tile


def with_tifffile(path: Path) -> ReadRegion:
    """Tiles through tifffile's page.decode, put together."""
    with tifffile.TiffFile(path) as tiff:
        pages = tiled_pages(tiff)
        for page in pages:
            page.decode  # noqa: B018 - made on first use, which needs the open file; then it is kept
    file = os.open(path, os.O_RDONLY)  # closed with the process, like everybody's here

    def read(x: int, y: int, level: int, side: int) -> Rgb:
        page = pages[level]
        step = round(pages[0].imagewidth / page.imagewidth)
        left, top, px = x // step, y // step, page.tilewidth
        out = np.empty((side, side, 3), dtype=np.uint8)
        for row in range(top // px, -(-(top + side) // px)):
            for column in range(left // px, -(-(left + side) // px)):
                _paste(out, _tile(file, page, row, column), column * px - left, row * px - top)
        return out

    return read


def with_pyvips(path: Path) -> ReadRegion:
    """libvips' own TIFF reader; a page is a directory of the file, thumbnails and labels counted."""
    pyvips = import_module("pyvips")

    with tifffile.TiffFile(path) as tiff:
        pages = tiled_pages(tiff)
        steps = [round(pages[0].imagewidth / page.imagewidth) for page in pages]
        images = [pyvips.Image.tiffload(str(path), page=page.index) for page in pages]
    regions = [pyvips.Region.new(image) for image in images]

    def read(x: int, y: int, level: int, side: int) -> Rgb:
        pixels = regions[level].fetch(x // steps[level], y // steps[level], side, side)
        return np.frombuffer(pixels, dtype=np.uint8).reshape(side, side, 3)

    return read


def with_cucim(path: Path) -> ReadRegion:
    """cuCIM on the CPU."""
    image = import_module("cucim").CuImage(str(path))

    def read(x: int, y: int, level: int, side: int) -> Rgb:
        return np.asarray(image.read_region(location=(x, y), size=(side, side), level=level))

    return read


def with_tiffslide(path: Path) -> ReadRegion:
    """tiffslide, straight to an array."""
    slide = import_module("tiffslide").TiffSlide(path)

    def read(x: int, y: int, level: int, side: int) -> Rgb:
        return np.asarray(slide.read_region((x, y), level, (side, side), as_array=True))

    return read


# By the package that has to be there.
PEERS: dict[str, Callable[[Path], ReadRegion]] = {
    "tifffile": with_tifffile,
    "cucim": with_cucim,
    "pyvips": with_pyvips,
    "tiffslide": with_tiffslide,
}


def installed_peers() -> dict[str, Callable[[Path], ReadRegion]]:
    """Those of `PEERS` that can be imported here."""
    return {name: open_peer for name, open_peer in PEERS.items() if find_spec(name) is not None}


def _tile(file: int, page: tifffile.TiffPage, row: int, column: int) -> Rgb:
    index = row * -(-page.imagewidth // page.tilewidth) + column
    data = os.pread(file, page.databytecounts[index], page.dataoffsets[index])
    pixels = page.decode(data, index, jpegtables=page.jpegtables)[0]
    assert pixels is not None, "the tile is there"
    return np.asarray(pixels[0])


def _paste(out: Rgb, tile: Rgb, left: int, top: int) -> None:
    """Puts a tile where its corner lies relative to `out`, cut to it."""
    rows, columns = (slice(max(0, edge), edge + px) for edge, px in zip((top, left), tile.shape[:2], strict=True))
    part = out[rows, columns]
    part[:] = tile[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]]
