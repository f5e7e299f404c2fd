"""Slides and features whose own text names the file that holds the pixels: each as small as its reader takes it."""

import io
import secrets
import struct
from pathlib import Path

import h5py
import numpy as np

from attacks.sample_slides import FEATURE_DIM, add_coords, features_file, jpeg
from attacks.target import FormFile

_SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"
_TILES = 16
MIRAX_TILE_PX = 256


def from_anywhere(path: Path) -> str:
    """The path as a name that leads there from any folder, however a reader joins the two."""
    return "../" * 24 + str(path).lstrip("/")


def vms(image: str, *, macro: str = "", map_file: str = "", optimisation: str = "") -> bytes:
    """Hamamatsu's index of one JPEG."""
    lines = ["[Virtual Microscope Specimen]", "NoLayers=1", "NoJpegColumns=1", "NoJpegRows=1", f"ImageFile={image}"]
    lines += [f"MapFile={map_file or image}", f"OptimisationFile={optimisation}", "SourceLens=20"]
    lines += ["PhysicalWidth=100000", "PhysicalHeight=100000"]
    return "\n".join([*lines, f"MacroImage={macro or image}", _nonce()]).encode()


def vmu(image: str) -> bytes:
    """Hamamatsu's index of uncompressed pixels."""
    lines = ["[Uncompressed Virtual Microscope Specimen]", "NoLayers=1", "BitsPerPixel=36", "PixelOrder=RGB"]
    return "\n".join([*lines, f"ImageFile={image}", f"MapFile={image}", _nonce()]).encode()


def ngr(side_px: int = 64) -> bytes:
    """Hamamatsu's uncompressed pixels."""
    head = b"GN" + bytes(2) + struct.pack("<iii", side_px, side_px, side_px)
    return head.ljust(24, b"\0") + struct.pack("<i", 32) + bytes(4) + b"\xff\x07" * (3 * side_px * side_px)


def _nonce() -> str:
    """A slide that was sent before is not looked at again."""
    return f"Nonce={secrets.token_hex(8)}\n"


def whole_vms() -> list[FormFile]:
    """A good one."""
    picture = jpeg()
    return [("file", "slide.vms", vms("image.jpg")), ("file", "image.jpg", picture)]


def mirax(data_file: str, size_bytes: int, *, index_file: str = "Index.dat") -> list[FormFile]:
    """A MIRAX of one tile, the whole of `data_file`, without that file."""
    ini = "\n".join(
        [
            "[GENERAL]\nSLIDE_VERSION = 01.02",
            f"SLIDE_ID = {_SLIDE_ID}",
            "IMAGENUMBER_X = 1\nIMAGENUMBER_Y = 1\nOBJECTIVE_MAGNIFICATION = 20\nCameraImageDivisionsPerSide = 1",
            f"[HIERARCHICAL]\nINDEXFILE = {index_file}\nHIER_COUNT = 1\nNONHIER_COUNT = 0",
            "HIER_0_NAME = Slide zoom level\nHIER_0_COUNT = 1\nHIER_0_VAL_0 = ZoomLevel_0",
            "HIER_0_VAL_0_SECTION = LEVEL_0",
            f"[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = {data_file}",
            "[LEVEL_0]\nOVERLAP_X = 0\nOVERLAP_Y = 0\nMICROMETER_PER_PIXEL_X = 0.5\nMICROMETER_PER_PIXEL_Y = 0.5",
            "IMAGE_FORMAT = JPEG\nIMAGE_FILL_COLOR_BGR = 16777215\nIMAGE_CONCAT_FACTOR = 0",
            f"DIGITIZER_WIDTH = {MIRAX_TILE_PX}\nDIGITIZER_HEIGHT = {MIRAX_TILE_PX}\n",
        ]
    )
    return [
        ("file", "slide.mrxs", jpeg(64)),
        ("file", "slide/Slidedat.ini", ini.encode()),
        ("file", "slide/Index.dat", mirax_index(size_bytes)),
    ]


def mirax_index(size_bytes: int) -> bytes:
    """One level with one tile of so many bytes, at the beginning of the first data file."""
    head = b"01.02" + _SLIDE_ID.encode()
    levels_at = len(head) + 8
    list_at = levels_at + 4
    page_at = list_at + 8
    page = struct.pack("<ii", 1, 0) + struct.pack("<iiii", 0, 0, size_bytes, 0)
    return head + struct.pack("<iiiii", levels_at, 0, list_at, 0, page_at) + page


def whole_mirax() -> list[FormFile]:
    """A good one."""
    data = jpeg(MIRAX_TILE_PX)
    return [*mirax("Data0000.dat", len(data)), ("file", "slide/Data0000.dat", data)]


def external_link(path: Path) -> bytes:
    """HDF5 whose features are a link into another file."""
    return _hdf5(lambda file: file.__setitem__("features", h5py.ExternalLink(str(path), "/features")))


def external_group(path: Path) -> bytes:
    """Both data sets are links into another file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in ("features", "coords"):
            file[name] = h5py.ExternalLink(str(path), f"/{name}")
    return buffer.getvalue()


def virtual_dataset(path: Path) -> bytes:
    """HDF5 whose features are a view of another file's."""

    def fill(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape=(_TILES, FEATURE_DIM), dtype=np.float32)
        layout[:] = h5py.VirtualSource(str(path), "features", shape=(_TILES, FEATURE_DIM))
        file.create_virtual_dataset("features", layout)

    return _hdf5(fill)


def external_storage(path: Path) -> bytes:
    """HDF5 whose features are the raw bytes of any file."""

    def fill(file: h5py.File) -> None:
        size = _TILES * FEATURE_DIM * 4
        file.create_dataset("features", shape=(_TILES, FEATURE_DIM), dtype=np.float32, external=[(str(path), 0, size)])

    return _hdf5(fill)


def external_coords(path: Path) -> bytes:
    """Own features at another file's coordinates."""
    buffer = io.BytesIO(features_file(_TILES))
    with h5py.File(buffer, "r+") as file:
        del file["coords"]
        file["coords"] = h5py.ExternalLink(str(path), "/coords")
    return buffer.getvalue()


def _hdf5(fill) -> bytes:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
        add_coords(file, _TILES)
    return buffer.getvalue()
