"""Leica SCN, Philips TIFF, Hamamatsu NDPI and VMS by writers of our own, as little of each as OpenSlide reads."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
_SCN = "http://www.leica-microsystems.com/scn/2010/10/01"
_NM_PER_UM, _UM_PER_CM, _MM_PER_UM = 1_000, 10_000, 0.001
_LONG, _SLONG, _FLOAT = 4, 9, 11
_FORMAT, _LENS, _FOCAL_PLANE, _MCU_STARTS = 65420, 65421, 65424, 65426
# Hamamatsu's restart markers begin each row of 8 pixels anew; a row is cut in parts of at most so many blocks.
_BLOCK_PX, _MOST_BLOCKS = 8, 64
_QUALITY = 96


@dataclass(frozen=True)
class TiledLevel:
    """Sides in its own pixels as the file says them; `tiles` are JPEG streams in raster order, b"" for none."""

    width: int
    height: int
    tiles: Sequence[bytes]


@dataclass(frozen=True)
class ScannedArea:
    """One of SCN's main images: where it lies, in level-0 pixels of the canvas, its size there, and its levels."""

    left: int
    top: int
    width: int
    height: int
    levels: Sequence[TiledLevel]


@dataclass(frozen=True)
class Said:
    """What a file says of all of its levels, true or not."""

    tile_px: int
    mpp: float
    objective_power: float
    is_rgb: bool = False


def write_scn(path: Path, canvas: tuple[int, int], areas: Sequence[ScannedArea], said: Said) -> Path:
    """`canvas` is the collection's (width, height). A picture of all of it, the macro, comes last: a grey one here."""
    macro = with_restarts(np.full((said.tile_px, said.tile_px, 3), 128, dtype=np.uint8))
    areas = [*areas, ScannedArea(0, 0, *canvas, [TiledLevel(said.tile_px, said.tile_px, [macro])])]
    levels = [level for area in areas for level in area.levels]
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            description = _scn_xml(canvas, areas, said) if not index else None
            _write_tiled(tiff, level, said, description=description, subfiletype=0, **_resolution(said.mpp))
    return path


def _scn_xml(canvas: tuple[int, int], areas: Sequence[ScannedArea], said: Said) -> str:
    nm = round(said.mpp * _NM_PER_UM)
    images, directory = "", 0
    for area in areas:
        dimensions = ""
        for index, level in enumerate(area.levels):
            dimensions += f'<dimension sizeX="{level.width}" sizeY="{level.height}" r="{index}" ifd="{directory}"/>'
            directory += 1
        images += (
            f"<image><device model='drawn' version='1'/><pixels>{dimensions}</pixels>"
            f'<view sizeX="{area.width * nm}" sizeY="{area.height * nm}" offsetX="{area.left * nm}" '
            f'offsetY="{area.top * nm}" spacingZ="0"/><scanSettings><objectiveSettings><objective>'
            f"{said.objective_power:g}</objective></objectiveSettings><illuminationSettings><illuminationSource>"
            "brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )
    sides = f'sizeX="{canvas[0] * nm}" sizeY="{canvas[1] * nm}"'
    return f'<?xml version="1.0"?><scn xmlns="{_SCN}"><collection name="drawn" {sides}>{images}</collection></scn>'


def write_philips(path: Path, levels: Sequence[TiledLevel], downsamples: Sequence[float], said: Said) -> Path:
    """`downsamples` are what the levels' pixel spacings say; sides are whole tiles."""
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            description = _philips_xml(downsamples, said) if not index else None
            software = False if index else "Philips DP v1.0"
            _write_tiled(tiff, level, said, description=description, software=software, subfiletype=1 if index else 0)
    return path


def _philips_xml(downsamples: Sequence[float], said: Said) -> str:
    def spacing(downsample: float) -> str:
        mm = f"&quot;{said.mpp * downsample * _MM_PER_UM:.6f}&quot;"
        return f'<Attribute Name="DICOM_PIXEL_SPACING">{mm} {mm}</Attribute>'

    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(it)}</DataObject>' for it in downsamples
    )
    return (
        '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        f'{spacing(1)}<Attribute Name="DICOM_DERIVATION_DESCRIPTION">tiff-levels={said.objective_power:g}</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )


def _write_tiled(tiff: tifffile.TiffWriter, level: TiledLevel, said: Said, **tags: Any) -> None:
    tiff.write(
        iter(level.tiles),
        shape=(level.height, level.width, 3),
        dtype=np.uint8,
        tile=(said.tile_px, said.tile_px),
        photometric="rgb" if said.is_rgb else "ycbcr",
        subsampling=None if said.is_rgb else (1, 1),
        compression="jpeg",
        compressionargs={"outcolorspace": "rgb"} if said.is_rgb else None,
        metadata=None,
        **{"software": False} | tags,
    )


def write_ndpi(path: Path, levels: Sequence[bytes], sizes: Sequence[tuple[int, int]], said: Said) -> Path:
    """Each level is one JPEG stream, of a size (width, height); sides with restart markers are whole blocks."""
    with tifffile.TiffWriter(path) as tiff:
        for stream, (width, height) in zip(levels, sizes, strict=True):
            starts = list(_restarts(stream))
            tags = [
                (_FORMAT, _LONG, 1, 1, True),
                (_LENS, _FLOAT, 1, said.objective_power, True),
                (_FOCAL_PLANE, _SLONG, 1, 0, True),
            ]
            if len(starts) > 1:
                tags.append((_MCU_STARTS, _LONG, len(starts), starts, True))
            tiff.write(
                iter([stream]),
                shape=(height, width, 3),
                dtype=np.uint8,
                rowsperstrip=height,
                photometric="rgb" if said.is_rgb else "ycbcr",
                subsampling=None if said.is_rgb else (1, 1),
                compression="jpeg",
                compressionargs={"outcolorspace": "rgb"} if said.is_rgb else None,
                extratags=tags,
                metadata=None,
                software=False,
                **_resolution(said.mpp),
            )
    return path


def write_vms(folder: Path, pictures: Sequence[bytes], overview: bytes, width: int, height: int, said: Said) -> Path:
    """`pictures` lie side by side and make up level 0, `overview` is the level that is called a map."""
    folder.mkdir(parents=True)
    lines = [f"NoLayers=1\nNoJpegColumns={len(pictures)}\nNoJpegRows=1\nSourceLens={said.objective_power:g}"]
    for column, stream in enumerate(pictures):
        (folder / f"picture{column}.jpg").write_bytes(stream)
        lines.append(f"ImageFile({column},0)=picture{column}.jpg" if column else "ImageFile=picture0.jpg")
    (folder / "map.jpg").write_bytes(overview)
    lines.append("MapFile=map.jpg")
    lines += [
        f"Physical{side}={round(px * said.mpp * _NM_PER_UM)}" for side, px in (("Width", width), ("Height", height))
    ]
    path = folder / "slide.vms"
    path.write_text("\n".join(["[Virtual Microscope Specimen]", *lines, ""]))
    return path


def with_restarts(picture: Picture) -> bytes:
    """JPEG with markers at which decoding can begin, as Hamamatsu's scanners write it; sides are whole blocks."""
    blocks = picture.shape[1] // _BLOCK_PX
    interval = next(it for it in range(min(_MOST_BLOCKS, blocks), 0, -1) if blocks % it == 0)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


def is_whole_blocks(picture: Picture) -> bool:
    """Whether `with_restarts` can be used on it."""
    return picture.shape[0] % _BLOCK_PX == 0 and picture.shape[1] % _BLOCK_PX == 0


def _restarts(stream: bytes) -> Iterator[int]:
    """Where each part begins, the first one behind the scan's header."""
    scan = stream.index(b"\xff\xda")
    yield scan + 2 + int.from_bytes(stream[scan + 2 : scan + 4])
    yield from (scan + match.end() for match in re.finditer(rb"\xff[\xd0-\xd7]", stream[scan:]))


def _resolution(mpp: float) -> dict[str, Any]:
    return {"resolution": (_UM_PER_CM / mpp, _UM_PER_CM / mpp), "resolutionunit": "CENTIMETER"}
