"""DICOM series as archives send them: levels, a level in parts (a concatenation), a label; and the body of STOW-RS."""

from collections.abc import Sequence
from pathlib import Path

import pydicom
from dicom_slide import DicomLevel, write_dicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from slides_of_several import GREEN, jpeg

STOW_HEADERS = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=parts'}


def write_series(folder: Path) -> list[Path]:
    """A level of four tiles and one of one tile, in this order."""
    tile = jpeg(GREEN)
    levels = [DicomLevel(512, 512, 0.5, [tile] * 4), DicomLevel(256, 256, 1.0, [tile])]
    write_dicom(folder, levels, 256, 20, "YBR_FULL_422")
    return sorted(folder.iterdir())


def in_parts(level: Path, count: int) -> list[Path]:
    """The level as a concatenation of `count` instances beside it; its own file goes."""
    whole = pydicom.dcmread(level)
    frames = list(generate_frames(whole.PixelData, number_of_frames=whole.NumberOfFrames))
    size = len(frames) // count
    concatenation, source = uid.generate_uid(), whole.SOPInstanceUID
    parts = []
    for number in range(count):
        part = _renamed(pydicom.dcmread(level))
        part.ConcatenationUID, part.SOPInstanceUIDOfConcatenationSource = concatenation, source
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number + 1, count
        part.ConcatenationFrameOffsetNumber = number * size
        part.NumberOfFrames = size
        part.PixelData = encapsulate(frames[number * size : (number + 1) * size])
        part["PixelData"].is_undefined_length = True
        parts.append(level.with_name(f"{level.stem}-{number}.dcm"))
        part.save_as(parts[-1], enforce_file_format=True)
    level.unlink()
    return parts


def as_label(level: Path) -> Path:
    """A label of the level's series, beside it."""
    label = _renamed(pydicom.dcmread(level))
    label.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    path = level.with_name("label.dcm")
    label.save_as(path, enforce_file_format=True)
    return path


def series_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID)


def study_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def stow_body(instances: Sequence[bytes]) -> bytes:
    """For STOW_HEADERS."""
    parts = [b"--parts\r\nContent-Type: application/dicom\r\n\r\n" + instance + b"\r\n" for instance in instances]
    return b"".join(parts) + b"--parts--\r\n"


def _renamed(dataset: Dataset) -> Dataset:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    return dataset
