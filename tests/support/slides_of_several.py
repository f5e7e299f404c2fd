"""Tiny slides of several files, whose index may name any file: Hamamatsu VMS and VMU, MIRAX."""

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 256
RED, GREEN = (200, 30, 30), (30, 160, 60)


def picture(rgb: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One colour with some grain: RGB uint8 [256, 256, 3]."""
    grain = np.random.default_rng(5).integers(-10, 10, (SIDE_PX, SIDE_PX, 3))
    return np.asarray(np.clip(np.array(rgb) + grain, 0, 255), dtype=np.uint8)


def jpeg(rgb: tuple[int, int, int]) -> bytes:
    """A JPEG of that colour, with restart markers as Hamamatsu's scanners write them."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, 8]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", picture(rgb)[..., ::-1], options)[1].tobytes()


def write_vms(folder: Path, name: str = "slide.vms", **names: str) -> Path:
    """A good .vms of green pixels, unless `names` (ImageFile, MapFile, …) say where its files are."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("image.jpg", "map.jpg"):
        (folder / part).write_bytes(jpeg(GREEN))
    keys = {"ImageFile": "image.jpg", "MapFile": "map.jpg", "PhysicalWidth": "128000", "PhysicalHeight": "128000"}
    keys |= {"NoLayers": "1", "NoJpegColumns": "1", "NoJpegRows": "1", "SourceLens": "20"} | names
    lines = [f"{key}={value}" for key, value in keys.items()]
    path = folder / name
    path.write_text("\n".join(["[Virtual Microscope Specimen]", *lines, ""]))
    return path


def write_vmu(folder: Path, name: str = "slide.vmu", **names: str) -> Path:
    """A .vmu, Hamamatsu's uncompressed kind; good ones hold raw pixels, of which this has none."""
    keys = {"ImageFile": "image.ngr", "MapFile": "map.ngr", "NoLayers": "1", "BitsPerPixel": "36"}
    keys |= {"PixelOrder": "RGB", "PhysicalWidth": "128000", "PhysicalHeight": "128000"} | names
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = [f"{key}={value}" for key, value in keys.items()]
    path.write_text("\n".join(["[Uncompressed Virtual Microscope Specimen]", *lines, ""]))
    return path


def write_mirax(
    folder: Path, name: str = "slide.mrxs", *, data: str = "Data0000.dat", index: str = "Index.dat"
) -> Path:
    """A good MIRAX slide of one green image at 0.5 µm/px, unless the names lead elsewhere."""
    path = folder / name
    inner = path.with_suffix("")
    inner.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"any")
    pixels = jpeg(GREEN)
    (inner / "Data0000.dat").write_bytes(pixels)
    identity = b"0123456789ABCDEF0123456789ABCDEF"
    # From byte 37 on: roots → the level's record, which begins with 0 → its page: one image, number 0, in file 0.
    numbers = (45, 0, 49, 0, 57, 1, 0, 0, 0, len(pixels), 0)
    (inner / "Index.dat").write_bytes(b"01.02" + identity + struct.pack(f"<{len(numbers)}i", *numbers))
    (inner / "Slidedat.ini").write_text(
        _SLIDEDAT.format(identity=identity.decode(), data=data, index=index, side=SIDE_PX)
    )
    return path


_SLIDEDAT = """[GENERAL]
SLIDE_VERSION = 01.02
SLIDE_ID = {identity}
IMAGENUMBER_X = 1
IMAGENUMBER_Y = 1
OBJECTIVE_MAGNIFICATION = 20
CAMERA_IMAGE_DIVISIONS_PER_SIDE = 1
CameraImageDivisionsPerSide = 1
[HIERARCHICAL]
INDEXFILE = {index}
HIER_COUNT = 1
NONHIER_COUNT = 0
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 1
HIER_0_VAL_0 = ZoomLevel_0
HIER_0_VAL_0_SECTION = LEVEL_0
[DATAFILE]
FILE_COUNT = 1
FILE_0 = {data}
[LEVEL_0]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = 0.5
MICROMETER_PER_PIXEL_Y = 0.5
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {side}
DIGITIZER_HEIGHT = {side}
IMAGE_CONCAT_FACTOR = 0
"""
