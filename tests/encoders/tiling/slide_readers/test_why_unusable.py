"""Intact files that cannot be used say why; "damaged" is for damage."""

import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_slide import DicomLevel, write_dicom
from slides_of_several import GREEN, jpeg

from encoders.errors import UnreadableSlide, UnsupportedFormat
from encoders.tiling.dicom_elements import SERIES
from encoders.tiling.dicom_head import dicom_head
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.why_unusable import reason_said

PIXELS = np.random.default_rng(2).integers(0, 255, (256, 256, 3))
TWO_PATHS = [pydicom.Dataset(), pydicom.Dataset()]
TWO_PATHS[0].OpticalPathIdentifier, TWO_PATHS[1].OpticalPathIdentifier = "1", "2"


def tiff(path: Path, dtype: Any = np.uint8, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(
            path, PIXELS.astype(dtype), **{"photometric": "rgb", "tile": (128, 128), "metadata": None} | options
        )
    return path


def dicom(folder: Path, syntax: str | None = None, **changes: Any) -> Path:
    path = write_dicom(folder / "series", [DicomLevel(256, 256, 0.5, [jpeg(GREEN)])], 256, 20, "YBR_FULL_422")
    dataset = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(dataset, name, value)
    if "SOPClassUID" in changes:
        dataset.file_meta.MediaStorageSOPClassUID = changes["SOPClassUID"]
    if syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


def refusal_of(path: Path) -> str:
    with pytest.raises(UnsupportedFormat) as caught:
        open_reader(path, ReaderLimits())
    assert path.name not in caught.value.detail
    assert len(caught.value.detail) <= 300
    return caught.value.detail


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dtype": np.float32}, "floating-point"),
        ({"dtype": np.float64}, "floating-point"),
        ({"dtype": np.float16}, "floating-point"),
        ({"dtype": np.uint16}, "16 bits"),
        ({"dtype": np.uint16, "bigtiff": True, "byteorder": ">"}, "16 bits"),
        ({"dtype": np.uint32}, "32 bits"),
        ({"tile": None}, "not stored in tiles"),
        ({"compression": "webp"}, "WebP"),
        ({"compression": "jpegxl"}, "JPEG XL"),
        ({"compression": "jpegxr"}, "JPEG XR"),
    ],
)
def test_a_tiff_says_what_it_is_stored_as(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    assert why in refusal_of(tiff(tmp_path / "Doe^Jane.tif", **options))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_full_size_picture_in_strips_is_told_from_a_plain_picture(tmp_path: Path, is_first: bool) -> None:
    full, half = (PIXELS.astype(np.uint8), {}), (PIXELS[::2, ::2].astype(np.uint8), {"tile": (64, 64)})
    with tifffile.TiffWriter(tmp_path / "Doe^Jane.tif") as file:
        for pixels, options in (full, half) if is_first else (half, full):
            file.write(pixels, photometric="rgb", metadata=None, **options)

    assert "stored in strips, and only smaller ones in tiles" in refusal_of(tmp_path / "Doe^Jane.tif")


@pytest.mark.parametrize("is_cut", [False, True])
def test_tiles_that_are_cut_to_the_border_are_no_damage(tmp_path: Path, is_cut: bool) -> None:
    pixels = PIXELS[:200, :240].astype(np.uint8)
    tiles = [pixels[y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)]
    if not is_cut:
        tiles = [np.pad(tile, ((0, 128 - len(tile)), (0, 128 - tile.shape[1]), (0, 0))) for tile in tiles]
    streams = (bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=90)) for tile in tiles)
    path = tmp_path / "Doe^Jane.tif"
    options = {"shape": pixels.shape, "dtype": np.uint8, "tile": (128, 128), "compression": "jpeg"}
    tifffile.imwrite(path, streams, photometric="ycbcr", metadata=None, **options)

    if is_cut:
        assert "cut to its size, where TIFF wants whole tiles" in refusal_of(path)
    else:
        open_reader(path, ReaderLimits())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"TotalPixelMatrixFocalPlanes": 3}, "z-stack"),
        ({"NumberOfOpticalPaths": 2}, "several optical paths"),
        ({"OpticalPathSequence": TWO_PATHS}, "several optical paths"),
        ({"NumberOfOpticalPaths": 2, "BitsAllocated": 16}, "several optical paths"),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, "grey"),
        ({"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}, "16 bits"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "label, overview or thumbnail"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]}, "label, overview or thumbnail"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "a CT image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6.9"}, "of another kind"),
        ({"syntax": "1.2.840.10008.1.2.4.80"}, "JPEG-LS"),
        ({"syntax": "1.2.840.10008.1.2.4.201"}, "HTJ2K"),
    ],
)
def test_a_dicom_file_says_what_it_is(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    assert why in refusal_of(dicom(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "PALETTE COLOR"}, "palette"),
        ({"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "16 bits"),
        ({"TotalPixelMatrixFocalPlanes": 2}, "z-stack"),
    ],
)
def test_what_is_unusual_in_a_low_level_is_told_too(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    assert why in refusal_of(two_levels(tmp_path / "slide", **changes))


def test_a_series_without_its_finest_file_is_doubted(tmp_path: Path) -> None:
    whole = two_levels(tmp_path / "slide")
    assert open_reader(whole, ReaderLimits()).reader.facts.warnings == ()

    whole.unlink()
    facts = open_reader(whole.with_name("l1.dcm"), ReaderLimits()).reader.facts
    assert "finest_level_missing" in [it.code for it in facts.warnings]


def two_levels(folder: Path, **changes: Any) -> Path:
    """A series whose low level is changed; the file of the finest."""
    frame = jpeg(GREEN)
    levels = [DicomLevel(512, 512, 0.5, [frame] * 4), DicomLevel(256, 256, 1.0, [frame])]
    path = write_dicom(folder, levels, 256, 20, "YBR_FULL_422")
    low = pydicom.dcmread(path.with_name("l1.dcm"))
    for name, value in changes.items():
        setattr(low, name, value)
    low.save_as(path.with_name("l1.dcm"))
    return path


@pytest.mark.parametrize(("paths", "refused"), [(1, False), (2, True)])
def test_several_optical_paths_in_a_low_level_are_seen_too(tmp_path: Path, paths: int, refused: bool) -> None:
    path = two_levels(tmp_path / "slide", NumberOfOpticalPaths=paths)

    if refused:
        assert "several optical paths" in refusal_of(path)
    else:
        open_reader(path, ReaderLimits())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"ImagedVolumeWidth": 0.256, "ImagedVolumeHeight": 0.256}, "an imaged volume that gives 1. If"),
        ({"ImagedVolumeWidth": 0.064, "ImagedVolumeHeight": 0.064}, "an imaged volume that gives 0.25. If"),
        ({"ImagedVolumeWidth": 0.0, "ImagedVolumeHeight": 0.0}, None),
        ({"ImagedVolumeWidth": None, "ImagedVolumeHeight": None}, None),
    ],
)
def test_dicom_whose_pixels_do_not_span_its_volume_is_doubted(
    tmp_path: Path, changes: dict[str, Any], words: str | None
) -> None:
    facts = open_reader(dicom(tmp_path, OpticalPathSequence=TWO_PATHS[:1], **changes), ReaderLimits()).reader.facts

    assert facts.mpp == 0.5
    assert [(it.code, str(words) in it.detail) for it in facts.warnings] == [("mpp_contradicted", True)] * bool(words)


def test_an_aperio_picture_smaller_than_the_scan_of_its_description_is_doubted(tmp_path: Path) -> None:
    text = "Aperio Image Library v11.2.1 \r\n512x512 [0,0 512x512] (256x256) J2K/YUV16 Q=70|AppMag = 20|MPP = 0.5"
    facts = open_reader(tiff(tmp_path / "a.svs", description=text), ReaderLimits()).reader.facts

    assert facts.mpp == 0.5
    (doubt,) = facts.warnings
    assert doubt.code == "mpp_contradicted"
    assert "2 times smaller than the described scan (512 × 512 px), which gives 1." in doubt.detail


def test_damage_is_still_called_damage(tmp_path: Path) -> None:
    path = dicom(tmp_path)
    path.write_bytes(path.read_bytes()[:-2_000])

    with pytest.raises(UnreadableSlide):
        open_reader(path, ReaderLimits()).reader.read_region(0, 0, 0, 256, 256)


def test_what_a_reader_says_of_anything_else_is_no_reason() -> None:
    assert reason_said("Corrupt JPEG data: bad Huffman code in /data/Doe^Jane.svs") is None
    assert "LERC" in (reason_said("LERC compression support is not configured") or "")


def test_the_series_is_found_behind_references_to_others(tmp_path: Path) -> None:
    other = pydicom.Dataset()
    other.SeriesInstanceUID = "1.2.3"
    path = dicom(tmp_path, ReferencedSeriesSequence=[other])

    assert dicom_head(path)[SERIES] == pydicom.dcmread(path).SeriesInstanceUID
