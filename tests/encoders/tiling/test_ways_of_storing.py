"""Pictures stored in ways that few scanners use: read as drawn, or refused with what to send instead."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_slide import DicomLevel, write_dicom
from drawn_pyramids import Picture
from numpy.typing import NDArray

from encoders.errors import SlideError
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader

SIDE_PX, TILE_PX = 384, 128
LIMITS = ReaderLimits()
JPEG, UNCOMPRESSED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
# Every refusal says what to do.
ADVICE = re.compile(r"(Export|Send|send) ")


@pytest.fixture(scope="module")
def drawn() -> Picture:
    """Colours that no two channels share, without symmetry, so that no mistake gives the same picture."""
    rng = np.random.default_rng(4)
    coarse = rng.integers(60, 250, (14, 14, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    picture[:, : SIDE_PX // 3] = (242, 240, 243)
    return np.asarray(picture, dtype=np.uint8)


def difference_from(drawn: Picture, path: Path) -> float:
    """Mean over all pixels, in grey levels; raises SlideError as the planning and reading of tiles do."""
    reader = open_reader(path, LIMITS).reader
    pixels = reader.read_region(0, 0, 0, SIDE_PX, SIDE_PX)
    assert reader.facts.mpp == pytest.approx(0.5)
    return float(np.abs(pixels.astype(np.int16) - drawn).mean())


def tiff(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    how = {"photometric": "rgb", "tile": (TILE_PX, TILE_PX), "metadata": None, "software": False}
    how |= {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "compression": "zlib"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(path, pixels, **how | options)
    return path


def palette(drawn: Picture) -> tuple[NDArray[Any], dict[str, Any]]:
    ramp = np.arange(256, dtype=np.uint16) * 257
    return drawn[..., 1], {"photometric": "palette", "colormap": np.stack([ramp, ramp // 2, ramp // 3])}


def cmyk(drawn: Picture) -> tuple[NDArray[Any], dict[str, Any]]:
    return np.dstack([255 - drawn, np.zeros_like(drawn[..., 0])]), {"photometric": "separated"}


def lab(drawn: Picture) -> tuple[NDArray[Any], dict[str, Any]]:
    shifted = cv2.cvtColor(drawn, cv2.COLOR_RGB2LAB).astype(np.int16) - np.array([0, 128, 128], dtype=np.int16)
    return shifted.astype(np.int8).view(np.uint8), {"photometric": "cielab"}


def icc_lab(drawn: Picture) -> tuple[NDArray[Any], dict[str, Any]]:
    return cv2.cvtColor(drawn, cv2.COLOR_RGB2LAB), {"photometric": "icclab"}


def planes(drawn: Picture) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(drawn, 2, 0))


JPEG_OPTIONS = {"compression": "jpeg", "compressionargs": {"level": 98, "outcolorspace": "rgb"}}
WAYS: dict[str, tuple[Callable[[Picture], tuple[NDArray[Any], dict[str, Any]]], str | None]] = {
    # What a way is called: how it is stored, and what its refusal says; None where it is read.
    "uncompressed": (lambda it: (it, {"compression": None}), None),
    "LZW": (lambda it: (it, {"compression": "lzw"}), None),
    "predictor": (lambda it: (it, {"predictor": True}), None),
    "big-endian": (lambda it: (it, {"byteorder": ">"}), "big-endian"),
    "planes": (lambda it: (planes(it), {"planarconfig": "separate"}), None),
    "planes, uncompressed": (lambda it: (planes(it), {"planarconfig": "separate", "compression": None}), None),
    "planes, Aperio": (lambda it: (planes(it), {"planarconfig": "separate", "description": "Aperio |MPP = 0.5"}), None),
    "alpha": (lambda it: (np.dstack([it, np.full_like(it[..., 0], 255)]), {"extrasamples": ["unassalpha"]}), None),
    "unspecified fourth": (
        lambda it: (np.dstack([it, np.full_like(it[..., 0], 200)]), {"extrasamples": ["unspecified"]}),
        "fourth channel",
    ),
    "palette": (palette, "palette"),
    "CMYK": (cmyk, "CMYK"),
    "L*a*b*": (lab, r"L\*a\*b\*"),
    "ICC L*a*b*": (icc_lab, r"L\*a\*b\*"),
    "grey": (lambda it: (it[..., 1], {"photometric": "minisblack"}), "monochrome"),
    "grey, white is zero": (lambda it: (255 - it[..., 1], {"photometric": "miniswhite"}), "monochrome"),
    "5 channels": (
        lambda it: (np.dstack([it, it[..., :2]]), {"extrasamples": ["unspecified", "unspecified"]}),
        "5 channels",
    ),
    "6 channels in planes": (
        lambda it: (np.concatenate([planes(it)] * 2), {"photometric": "minisblack", "planarconfig": "separate"}),
        "6 channels",
    ),
    "16 bits": (lambda it: (it.astype(np.uint16) * 257, {}), "16 bits"),
    "grey pages of 16 bits": (
        lambda it: (planes(it).astype(np.uint16) * 257, {"photometric": "minisblack"}),
        "16 bits|16-bit",
    ),
    "signed": (lambda it: (it.view(np.int8), {}), "signed"),
    "upside down": (lambda it: (it[::-1, ::-1], {"extratags": [(274, 3, 1, 3, True)]}), "orientation"),
    "turned": (lambda it: (it, {"extratags": [(274, 3, 1, 6, True)]}), "orientation"),
    # OpenSlide decodes these itself, and leaves the picture as it is stored.
    "JPEG, turned": (lambda it: (it, {"extratags": [(274, 3, 1, 6, True)]} | JPEG_OPTIONS), None),
    "JPEG": (lambda it: (it, JPEG_OPTIONS), None),
    "CMYK, JPEG": (lambda it: (cmyk(it)[0], cmyk(it)[1] | {"compression": "jpeg"}), "CMYK"),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_tiff_is_read_as_drawn_or_refused(tmp_path: Path, drawn: Picture, name: str) -> None:
    store, refusal = WAYS[name]
    pixels, options = store(drawn)
    path = tiff(tmp_path / "Doe^Jane.tif", pixels, **options)

    if refusal is None:
        assert difference_from(drawn, path) <= 1
        return
    with pytest.raises(SlideError, match=refusal) as caught:
        difference_from(drawn, path)
    assert_is_honest(caught.value.detail)


def assert_is_honest(refusal: str) -> None:
    assert "damaged" not in refusal
    assert ADVICE.search(refusal), refusal
    assert "Doe" not in refusal
    assert len(refusal) <= 300


def frames_of(drawn: Picture, encode: Callable[[Picture], bytes]) -> list[bytes]:
    return [
        encode(np.ascontiguousarray(drawn[top : top + TILE_PX, left : left + TILE_PX]))
        for top in range(0, SIDE_PX, TILE_PX)
        for left in range(0, SIDE_PX, TILE_PX)
    ]


def j2k(*, is_exact: bool = True, is_transformed: bool = True) -> Callable[[Picture], bytes]:
    def encode(tile: Picture) -> bytes:
        options: dict[str, Any] = {"level": 0, "reversible": True} if is_exact else {"level": 45, "reversible": False}
        return bytes(imagecodecs.jpeg2k_encode(tile, codecformat="j2k", mct=is_transformed, **options))

    return encode


def jpeg(tile: Picture) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(tile, level=98, subsampling="444"))


def plain(tile: Picture) -> bytes:
    return tile.tobytes()


def in_planes(tile: Picture) -> bytes:
    return planes(tile).tobytes()


def grey(tile: Picture) -> bytes:
    return np.ascontiguousarray(tile[..., 0]).tobytes()


def dicom(
    folder: Path, frames: list[bytes], syntax: str, photometric: str, changes: dict[str, int] | None = None
) -> Path:
    path = write_dicom(folder / "Doe^Jane", [DicomLevel(SIDE_PX, SIDE_PX, 0.5, frames)], TILE_PX, 20, photometric)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == UNCOMPRESSED:
        dataset.PixelData = b"".join(frames)
        dataset["PixelData"].is_undefined_length = False
    for name, value in (changes or {}).items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


PALETTE = {"SamplesPerPixel": 1}
DICOM_WAYS: dict[str, tuple[Callable[[Picture], bytes], str, str, dict[str, int], str | None]] = {
    # How tiles are encoded, the transfer syntax, the photometric interpretation, what else the header says, and the
    # refusal; None where it is read.
    "J2K, reversible": (j2k(), J2K_LOSSLESS, "YBR_RCT", {}, None),
    "J2K, lossy": (j2k(is_exact=False), J2K, "YBR_ICT", {}, None),
    "J2K, untransformed": (j2k(is_transformed=False), J2K_LOSSLESS, "RGB", {}, None),
    "J2K, transformed, called RGB": (j2k(), J2K_LOSSLESS, "RGB", {}, None),
    "J2K, untransformed, called YBR_RCT": (j2k(is_transformed=False), J2K_LOSSLESS, "YBR_RCT", {}, "colour space"),
    "J2K, called YBR_FULL": (j2k(is_transformed=False), J2K_LOSSLESS, "YBR_FULL", {}, "YBR_FULL"),
    "uncompressed": (plain, UNCOMPRESSED, "RGB", {}, None),
    "planes": (in_planes, UNCOMPRESSED, "RGB", {"PlanarConfiguration": 1}, "PlanarConfiguration 1"),
    "JPEG called planes": (jpeg, JPEG, "YBR_FULL_422", {"PlanarConfiguration": 1}, "PlanarConfiguration 1"),
    "uncompressed YCbCr": (plain, UNCOMPRESSED, "YBR_FULL", {}, "YBR_FULL"),
    "JPEG called YBR_FULL": (jpeg, JPEG, "YBR_FULL", {}, "YBR_FULL"),
    "palette": (grey, UNCOMPRESSED, "PALETTE COLOR", PALETTE, "palette"),
    "signed": (plain, UNCOMPRESSED, "RGB", {"PixelRepresentation": 1}, "signed"),
    "16 bits": (plain, UNCOMPRESSED, "RGB", {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "16 bits"),
}


@pytest.mark.parametrize("name", DICOM_WAYS)
def test_a_dicom_series_is_read_as_drawn_or_refused(tmp_path: Path, drawn: Picture, name: str) -> None:
    encode, syntax, photometric, changes, refusal = DICOM_WAYS[name]
    path = dicom(tmp_path, frames_of(drawn, encode), syntax, photometric, changes)

    if refusal is None:
        assert difference_from(drawn, path) <= 2
        return
    with pytest.raises(SlideError, match=refusal) as caught:
        difference_from(drawn, path)
    assert_is_honest(caught.value.detail)
