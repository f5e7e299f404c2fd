"""Slides made from a picture that is known at every level-0 pixel, in pyramids of every kind, right and wrong.

A case is made from a seed alone. What is read of it is compared with the drawn picture, never with another reader:
OpenSlide shares several of the mistakes that this looks for. The writers are tifffile's and pydicom's, and our own of
MIRAX, SCN, NDPI, VMS and Philips TIFF.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import imagecodecs
import numpy as np
import tifffile
from dicom_slide import DicomLevel, write_dicom
from mirax_slide import write_mirax
from numpy.typing import NDArray
from scanner_formats import (
    Said,
    ScannedArea,
    TiledLevel,
    is_whole_blocks,
    with_restarts,
    write_ndpi,
    write_philips,
    write_scn,
    write_vms,
)

Picture = NDArray[np.uint8]
Container = Literal["aperio", "generic-tiff", "dicom", "mirax", "scn", "philips", "ndpi", "vms"]
Fault = Literal["none", "macro", "blank", "shifted", "other slide", "aspect", "ten times too fine"]
Colour = Literal["as declared", "ycbcr called rgb", "one tile of another encoder"]
# Faults of the picture on whole levels, which must be noticed or do no harm.
LEVEL_FAULTS: tuple[Fault, ...] = ("macro", "blank", "shifted", "other slide", "aspect")
# By containers that cannot hold the others, or have no place for them.
_FAULTS_OF: dict[Container, tuple[Fault, ...]] = {
    "scn": ("blank", "shifted", "aspect"),
    "philips": LEVEL_FAULTS,
    "ndpi": ("blank", "shifted", "other slide", "macro"),
    "vms": ("blank", "shifted", "other slide", "macro"),
    "dicom": LEVEL_FAULTS,
}
_RATIOS_OF: dict[Container, tuple[int, ...]] = {
    "scn": (2, 3, 4),
    "philips": (2,),
    "ndpi": (2, 4),
    "vms": (16,),
    "dicom": (2, 4),
}
GLASS = (242, 240, 243)
_QUALITY = 96


@dataclass(frozen=True)
class Case:
    """One slide. `downsamples` are the true ones, 1 first; with `sparse` tiles of level 0 are left out, or SCN has two
    areas in place of one."""

    seed: int
    container: Container
    width: int
    height: int
    tile_px: int
    mpp: float
    downsamples: tuple[float, ...]
    padded: bool
    compression: Literal["jpeg", "deflate"]
    fault: Fault
    sparse: bool
    colour: Colour


def make_case(seed: int) -> Case:
    """The case of that number, the same for ever."""
    rng = np.random.default_rng((20_261_128, seed))
    container: Container = rng.choice(["aperio", "generic-tiff", "dicom", "mirax"], p=[0.3, 0.35, 0.25, 0.1])
    mpp = float(rng.choice([0.25, 0.5]))
    ratio = float(rng.choice([2, 2, 3, 4, 4, 2.5]))
    width, height = (int(rng.integers(520, 1_100)) for _ in range(2))
    count = int(rng.integers(1, 5))
    downsamples = tuple(ratio**index for index in range(count) if min(width, height) / ratio**index >= 40)
    tiff = container in ("aperio", "generic-tiff")
    case = Case(
        seed=seed,
        container=container,
        width=width,
        height=height,
        tile_px=int(rng.choice([64, 128, 240, 256, 512] if tiff else [64, 128, 256])),
        mpp=mpp,
        downsamples=downsamples,
        padded=bool(rng.random() < 0.4) and ratio != 2.5,
        compression="deflate" if tiff and rng.random() < 0.3 else "jpeg",
        fault=rng.choice(LEVEL_FAULTS) if rng.random() < 0.35 and len(downsamples) > 1 else "none",
        sparse=bool(rng.random() < 0.25),
        colour=str(rng.choice(["ycbcr called rgb", "one tile of another encoder"]))
        if rng.random() < 0.2
        else "as declared",
    )
    if container == "mirax":  # has whole tiles, halves sizes, and no place for the other faults
        side = case.tile_px * 4
        return dataclasses.replace(
            case,
            width=width // side * side or side,
            height=height // side * side or side,
            downsamples=(1.0, 2.0, 4.0),
            padded=False,
            fault="none",
            colour="as declared",
        )
    if container == "dicom":  # TILED_FULL has every tile
        case = dataclasses.replace(case, sparse=False)
    if case.container == "generic-tiff" and rng.random() < 0.1:
        case = dataclasses.replace(case, fault="ten times too fine")
    if case.compression == "deflate":
        case = dataclasses.replace(case, colour="as declared")
    return case


def make_other_case(seed: int) -> Case:
    """The same for other formats: a case of SCN, Philips TIFF, NDPI, VMS or sparse DICOM."""
    rng = np.random.default_rng((20_261_129, seed))
    container: Container = rng.choice(["scn", "philips", "ndpi", "vms", "dicom"])
    ratio = float(rng.choice(_RATIOS_OF[container]))
    count = 2 if container == "vms" else int(rng.integers(1, 4))
    has_tiles = container in ("scn", "philips", "dicom")
    # Hamamatsu's sides are whole blocks of pixels in every level.
    width, height = (128 * int(rng.integers(5, 9)) + (int(rng.integers(128)) if has_tiles else 0) for _ in range(2))
    return Case(
        seed=seed,
        container=container,
        width=width,
        height=height,
        tile_px=int(rng.choice([64, 128, 256, 512])),
        mpp=float(rng.choice([0.25, 0.5])),
        downsamples=tuple(ratio**index for index in range(count)),
        padded=container == "philips",
        compression="jpeg",
        fault=str(rng.choice(_FAULTS_OF[container])) if rng.random() < 0.35 and count > 1 else "none",
        sparse=container == "dicom" or (has_tiles and bool(rng.random() < 0.35)),
        colour=str(rng.choice(["ycbcr called rgb", "one tile of another encoder"]))
        if container != "vms" and rng.random() < 0.2
        else "as declared",
    )


@dataclass(frozen=True)
class Drawn:
    """A case's picture, RGB [height, width, 3], which of it is tissue and which was scanned, bool [height, width]."""

    case: Case
    picture: Picture
    tissue: NDArray[np.bool_]
    scanned: NDArray[np.bool_]

    def at(self, x: float, y: float, side_level0: float, side: int) -> Picture:
        """RGB [side, side, 3] of the square at level-0 (x, y), by the area of each pixel; white outside."""
        left, top, size = round(x), round(y), round(side_level0)
        out = np.full((size, size, 3), 255, dtype=np.uint8)
        seen = self.picture[max(0, top) : top + size, max(0, left) : left + size]
        out[max(0, -top) :, max(0, -left) :][: seen.shape[0], : seen.shape[1]] = seen
        return np.asarray(cv2.resize(out, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def draw(case: Case) -> Drawn:
    """Texture of four sizes, nowhere twice, in two blots of tissue on glass."""
    rng = np.random.default_rng((7, case.seed))
    size = case.width, case.height
    texture = sum(
        amplitude * _noise(rng, size, cell_px)
        for amplitude, cell_px in ((12.0, 5), (16.0, 17), (22.0, 60), (18.0, 170))
    )
    tissue = _noise(rng, size, min(size) // 3) + _bump(size) > 0.35
    if case.container in ("ndpi", "vms"):
        # Hamamatsu's levels go down to a few pixels a tile, where tissue as pale as glass is no matter of pyramids.
        texture = texture * 0.7
    stain = np.array([200, 140, 185]) + texture[..., np.newaxis] * np.array([0.9, 1.3, 0.8])
    picture = np.where(tissue[..., np.newaxis], stain, np.array(GLASS) + rng.normal(0, 0.6, (*size[::-1], 1)))
    drawn = np.clip(picture, 0, 255).round().astype(np.uint8)
    scanned = np.ones(size[::-1], dtype=np.bool_)
    if case.container == "scn":
        scanned[...] = False
        for left, top, right, bottom in _areas(case):
            scanned[top:bottom, left:right] = True
    elif case.sparse:
        for row, column in _left_out(case):
            side = case.tile_px
            scanned[row * side : (row + 1) * side, column * side : (column + 1) * side] = False
    return Drawn(case, drawn, tissue, scanned)


def write(case: Case, drawn: Drawn, folder: Path) -> Path:
    """The slide's file; of several, the one to open."""
    if case.container == "scn":
        return _write_scn(case, drawn, folder)
    levels = [_level(case, drawn, index) for index in range(len(case.downsamples))]
    if case.container == "dicom":
        return _write_dicom(case, levels, folder)
    if case.container == "mirax":
        missing = set(_left_out(case)) if case.sparse else set()
        return write_mirax(folder, levels, case.tile_px, case.mpp, missing)
    if case.container == "philips":
        tiled = [_tiled(case, picture, is_level0=index == 0) for index, picture in enumerate(levels)]
        return write_philips(folder / f"{case.seed}.tiff", tiled, case.downsamples, _said(case))
    if case.container == "ndpi":
        sizes = [(picture.shape[1], picture.shape[0]) for picture in levels]
        streams = [_stream(case, picture) for picture in levels]
        return write_ndpi(folder / f"{case.seed}.ndpi", streams, sizes, _said(case))
    if case.container == "vms":
        pictures = [with_restarts(half) for half in np.split(levels[0], 2, axis=1)]
        overview = with_restarts(levels[1])
        return write_vms(folder / "vms", pictures, overview, case.width, case.height, _said(case))
    return _write_tiff(case, levels, folder)


def _level(case: Case, drawn: Drawn, index: int) -> Picture:
    """As it is stored, padded and with the case's fault."""
    picture = drawn.picture
    last = index == len(case.downsamples) - 1
    if index and last and case.fault == "other slide":
        picture = draw(dataclasses.replace(case, seed=case.seed + 1_000_000, sparse=False)).picture
    level = _reduced(picture, case.downsamples[index])
    if index and last and case.fault == "macro":
        level = _reduced(draw(dataclasses.replace(case, seed=case.seed + 2_000_000)).picture, case.downsamples[index])
        level = cv2.resize(level, (max(40, level.shape[1] * 3 // 4), level.shape[0]), interpolation=cv2.INTER_AREA)
    if index and case.fault == "blank":
        level = np.full_like(level, 244)
    if index and last and case.fault == "shifted":
        level = np.roll(level, (level.shape[0] // 5, level.shape[1] // 6), axis=(0, 1))
    if index and last and case.fault == "aspect":
        level = cv2.resize(level, (level.shape[1], max(20, level.shape[0] * 4 // 5)), interpolation=cv2.INTER_AREA)
    return _padded(level, case.tile_px) if case.padded else level


def _reduced(picture: Picture, downsample: float) -> Picture:
    """A pixel for each whole square, as scanners cut; for other ratios one for each part of the sides."""
    height, width = picture.shape[:2]
    if downsample == int(downsample):
        d = int(downsample)
        rows, columns = height // d, width // d
        return np.asarray(cv2.resize(picture[: rows * d, : columns * d], (columns, rows), interpolation=cv2.INTER_AREA))
    size = round(width / downsample), round(height / downsample)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _padded(picture: Picture, tile_px: int) -> Picture:
    height, width = picture.shape[:2]
    add = -height % tile_px, -width % tile_px
    padded = np.full((height + add[0], width + add[1], 3), 255, dtype=np.uint8)
    padded[:height, :width] = picture
    return padded


def _left_out(case: Case) -> list[tuple[int, int]]:
    """(row, column) of the tiles of level 0 that were never scanned."""
    rng = np.random.default_rng((9, case.seed))
    rows, columns = -(-case.height // case.tile_px), -(-case.width // case.tile_px)
    return [(row, column) for row in range(rows) for column in range(columns) if rng.random() < 0.2]


def _tiles(case: Case, picture: Picture, *, is_level0: bool) -> Iterator[bytes]:
    side = case.tile_px
    missing = set(_left_out(case)) if case.sparse and is_level0 else set()
    height, width = picture.shape[:2]
    full = np.pad(picture, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    odd = np.random.default_rng(case.seed).integers(1_000)
    for index, (row, column) in enumerate(np.ndindex(full.shape[0] // side, full.shape[1] // side)):
        tile = np.ascontiguousarray(full[row * side : (row + 1) * side, column * side : (column + 1) * side])
        if (row, column) in missing:
            yield b""
        elif case.compression == "deflate":
            yield zlib.compress(tile.tobytes())
        else:
            yield _jpeg(case, tile, is_odd=index % 7 == odd % 7)


def _jpeg(case: Case, tile: Picture, *, is_odd: bool) -> bytes:
    """YCbCr where nothing else is wished; what is called RGB is RGB without a marker, as Aperio writes it."""
    is_rgb = case.colour == "one tile of another encoder" and not is_odd
    colours = "rgb" if is_rgb else "ycbcr"
    return bytes(
        imagecodecs.jpeg8_encode(
            tile, level=_QUALITY, colorspace="rgb", outcolorspace=colours, subsampling=None if is_rgb else "444"
        )
    )


def _stream(case: Case, picture: Picture) -> bytes:
    """Of a whole level."""
    if case.colour == "as declared" and is_whole_blocks(picture):
        return with_restarts(picture)
    return _jpeg(case, np.ascontiguousarray(picture), is_odd=False)


def _tiled(case: Case, picture: Picture, *, is_level0: bool) -> TiledLevel:
    return TiledLevel(picture.shape[1], picture.shape[0], list(_tiles(case, picture, is_level0=is_level0)))


def _said(case: Case) -> Said:
    return Said(case.tile_px, case.mpp, 10 / case.mpp, is_rgb=case.colour != "as declared")


def _areas(case: Case) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of what SCN has of its canvas, in whole pixels of every level."""
    step = int(case.downsamples[-1])
    first = -(-48 // step) * step
    right, bottom = ((side - 48) // step * step for side in (case.width, case.height))
    if not case.sparse:
        return [(first, first, right, bottom)]
    middle, gap = (first + right) // 2 // step * step, -(-64 // step) * step
    return [(first, first, middle, bottom), (middle + gap, 2 * first, right, bottom)]


def _write_scn(case: Case, drawn: Drawn, folder: Path) -> Path:
    areas = []
    for left, top, right, bottom in _areas(case):
        part = dataclasses.replace(drawn, picture=drawn.picture[top:bottom, left:right])
        levels = [
            # Padding of the finest level would count as scanned.
            _tiled(
                case, _level(dataclasses.replace(case, padded=case.padded and index > 0), part, index), is_level0=False
            )
            for index in range(len(case.downsamples))
        ]
        areas.append(ScannedArea(left, top, right - left, bottom - top, levels))
    return write_scn(folder / f"{case.seed}.scn", (case.width, case.height), areas, _said(case))


def _write_tiff(case: Case, levels: list[Picture], folder: Path) -> Path:
    path = folder / f"{case.seed}.tif"
    said_rgb = case.colour != "as declared" or case.compression == "deflate"
    stated_mpp = case.mpp / 10 if case.fault == "ten times too fine" else case.mpp
    how: dict[str, object] = {"compression": "zlib"}
    if case.compression == "jpeg":
        how = {"compression": "jpeg", "subsampling": None if said_rgb else (1, 1)}
        if said_rgb:
            how["compressionargs"] = {"outcolorspace": "rgb"}
    if case.container == "aperio":
        how["description"] = f"Aperio drawn\r\n|AppMag = {10 / case.mpp:g}|MPP = {case.mpp:g}"
    else:
        how |= {"resolution": (1e4 / stated_mpp, 1e4 / stated_mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for index, picture in enumerate(levels):
            tiff.write(
                _tiles(case, picture, is_level0=index == 0),
                shape=picture.shape,
                dtype=np.uint8,
                tile=(case.tile_px, case.tile_px),
                photometric="rgb" if said_rgb else "ycbcr",
                subfiletype=1 if index else 0,
                metadata=None,
                software=False,
                **how,
            )
    return path


def _write_dicom(case: Case, levels: list[Picture], folder: Path) -> Path:
    place = folder / str(case.seed)
    stored = [
        DicomLevel(
            picture.shape[1],
            picture.shape[0],
            case.mpp * downsample,
            list(_tiles(case, picture, is_level0=index == 0)),
        )
        for index, (picture, downsample) in enumerate(zip(levels, case.downsamples, strict=True))
    ]
    photometric = "YBR_FULL_422" if case.colour == "as declared" else "RGB"
    return write_dicom(place, stored, case.tile_px, 10 / case.mpp, photometric)


def _noise(rng: np.random.Generator, size: tuple[int, int], cell_px: int) -> NDArray[np.float32]:
    """Smooth noise from -1 to 1, [height, width]."""
    width, height = size
    coarse = rng.uniform(-1, 1, (height // cell_px + 3, width // cell_px + 3)).astype(np.float32)
    large = cv2.resize(coarse, None, fx=cell_px, fy=cell_px, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large[:height, :width])


def _bump(size: tuple[int, int]) -> NDArray[np.float32]:
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(1.2 - 2.0 * np.hypot(x / width - 0.5, y / height - 0.5) * 1.5, dtype=np.float32)


def cases(count: int, first_seed: int = 0) -> Iterator[Case]:
    """`count` cases from a seed on."""
    return (make_case(seed) for seed in range(first_seed, first_seed + count))


def other_cases(count: int, first_seed: int = 0) -> Iterator[Case]:
    """The same of the formats that need writers of their own."""
    return (make_other_case(seed) for seed in range(first_seed, first_seed + count))
