"""Ways to get the tiles of a plan, each held to OpenSlide's pixels before its time counts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.compressed_level import CompressedLevel, decode_all, decode_all_halved
from benchmarks.peer_readers import ReadRegion, halved_by_pil, installed_peers, openslide_pil
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.decode_buffer import decode_buffer
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Level, SlideReader
from encoders.types import TilePlan

Rgb = NDArray[np.uint8]
# Level-0 corners (x, y) of planned tiles.
Corners = Sequence[tuple[int, int]]
ReadTile = Callable[[int, int], Rgb]

LIMIT, LIMIT_HALVED = "LIMIT: decode from memory", "LIMIT halved by the decoder"
FAST, FAST_DCT, RAW = "eyepiece fast reader", "eyepiece fast reader, dct", "eyepiece OpenSlideReader"
OPENSLIDE, OPENSLIDE_REDUCED = "openslide, PIL", "openslide, PIL, halved by PIL"


@dataclass(frozen=True)
class Method:
    """`open()` opens the slide anew and gives a function to read tiles by, for comparing them.

    `prepare(corners)` does all that is not measured, opening among it, so that nothing is cached of earlier rounds; it
    gives the work that is measured. `is_exact` methods must give OpenSlide's pixels.
    """

    name: str
    open: Callable[[], ReadTile]
    prepare: Callable[[Corners], Callable[[], None]]
    is_exact: bool = True


@dataclass(frozen=True)
class Distance:
    """How far pixels lie from OpenSlide's, in grey levels."""

    most: int
    mean: float


def measured_methods(path: Path, plan: TilePlan, levels: Sequence[Level]) -> list[Method]:
    """LIMIT first; at half the resolution its decoder's own halving too."""
    compressed = CompressedLevel(path, levels[plan.level].width, levels[plan.level].height)
    limits = [_limit(plan, levels[plan.level], compressed)]
    ours = [_ours(FAST, path, plan), reading(RAW, lambda: reader_tiles(OpenSlideReader(path, ReaderLimits()), plan))]
    if plan.read_px == 2 * plan.tile_px:
        halved = _ours(FAST_DCT, path, replace(plan, reduction="dct"))
        ours.insert(1, replace(halved, is_exact=False))
        limits.append(_limit_halved(plan, levels[plan.level], compressed, halved.open))
        ours.append(reading(OPENSLIDE_REDUCED, lambda: halved_by_pil(path, plan)))
    return limits + ours + [_peer(name, opened, path, plan) for name, opened in _all_peers().items()]


def _ours(name: str, path: Path, plan: TilePlan) -> Method:
    return reading(name, lambda: reader_tiles(open_reader(path, ReaderLimits()).reader, plan))


def _peer(name: str, open_peer: Callable[[Path], ReadRegion], path: Path, plan: TilePlan) -> Method:
    return reading(name, lambda: region_tiles(open_peer(path), plan))


def _all_peers() -> dict[str, Callable[[Path], ReadRegion]]:
    return {OPENSLIDE: openslide_pil, **installed_peers()}


def reader_tiles(reader: SlideReader, plan: TilePlan) -> ReadTile:
    """As a worker's reader reads them, into a buffer that is used again."""
    out = decode_buffer(plan.tile_px, plan.tile_px, 3)
    return lambda x, y: read_tile(reader, plan, x, y, out)


def region_tiles(read: ReadRegion, plan: TilePlan) -> ReadTile:
    """Anyone's regions, reduced as we reduce them."""
    size = (plan.tile_px, plan.tile_px)

    def tile(x: int, y: int) -> Rgb:
        pixels = read(x, y, plan.level, plan.read_px)
        if plan.read_px == plan.tile_px:
            return pixels
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    return tile


def reading(name: str, opened: Callable[[], ReadTile]) -> Method:
    """A method that reads tile after tile."""

    def prepare(corners: Corners) -> Callable[[], None]:
        tile = opened()

        def work() -> None:
            for x, y in corners:
                tile(x, y)

        return work

    return Method(name, opened, prepare)


def distance(tile: ReadTile, reference: ReadTile, corners: Corners) -> Distance:
    """Over all these tiles."""
    most, total = 0, 0.0
    for x, y in corners:
        apart = cv2.absdiff(tile(x, y), reference(x, y))
        most, total = max(most, int(apart.max())), total + float(apart.mean())
    return Distance(most, total / len(corners))


def _limit(plan: TilePlan, level: Level, compressed: CompressedLevel) -> Method:
    def region(x: int, y: int, _: int, side: int) -> Rgb:
        return compressed.region(round(x / level.downsample), round(y / level.downsample), side)

    def prepare(corners: Corners) -> Callable[[], None]:
        streams = _streams(plan, level, compressed, corners)
        return lambda: decode_all(streams, compressed.tile_px)

    return Method(LIMIT, lambda: region_tiles(region, plan), prepare)


def _limit_halved(plan: TilePlan, level: Level, compressed: CompressedLevel, opened: Callable[[], ReadTile]) -> Method:
    def prepare(corners: Corners) -> Callable[[], None]:
        streams = _streams(plan, level, compressed, corners)
        return lambda: decode_all_halved(streams, compressed.tile_px)

    return Method(LIMIT_HALVED, opened, prepare, is_exact=False)


def _streams(
    plan: TilePlan, level: Level, compressed: CompressedLevel, corners: Iterable[tuple[int, int]]
) -> list[bytes]:
    """Every JPEG tile under these planned tiles, once."""
    places = {
        place: None
        for x, y in corners
        for place in compressed.places(round(x / level.downsample), round(y / level.downsample), plan.read_px)
    }
    return [compressed.stream(place) for place in places]
