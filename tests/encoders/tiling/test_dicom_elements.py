"""Elements of DICOM files that pydicom wrote, stepped over as pydicom reads them."""

import struct
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from encoders.errors import SlideTooLarge
from encoders.tiling.dicom_elements import PIXELS, SERIES, UNDEFINED, TooManyElements, is_dicom, top_level_elements
from encoders.tiling.dicom_head import dicom_head
from encoders.tiling.slide_readers import dicom_frames


def write(path: Path, syntax: str, *, says_length: bool) -> Path:
    """Sequences in a sequence before and between plain elements."""
    inner = Dataset()
    inner.SeriesInstanceUID = "9.9"  # nested: not the file's own
    inner.PixelSpacing = [0.00025, 0.00025]
    outer = Dataset()
    outer.PixelMeasuresSequence = Sequence([inner, inner])
    whole = Dataset()
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = syntax
    whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    whole.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    whole.ReferencedSeriesSequence = Sequence([outer, Dataset(), outer])
    whole.SeriesInstanceUID = "1.2.3.4"
    whole.PerFrameFunctionalGroupsSequence = Sequence([outer] * 3)
    for sequence in (whole["ReferencedSeriesSequence"], whole["PerFrameFunctionalGroupsSequence"]):
        sequence.is_undefined_length = not says_length
        for item in sequence.value:
            item.is_undefined_length_sequence_item = not says_length
    whole.LongitudinalTemporalInformationModified = "UNMODIFIED"
    whole.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("says_length", [True, False], ids=["lengths", "no lengths"])
def test_elements_are_those_that_pydicom_reads(tmp_path: Path, syntax: str, says_length: bool) -> None:
    path = write(tmp_path / "a.dcm", syntax, says_length=says_length)
    content = path.read_bytes()

    tags = []
    with suppress(struct.error):  # there are no pixels to end it
        for element in top_level_elements(lambda at, size: content[at : at + size], 1000):
            tags.append(element.tag)

    read = pydicom.dcmread(path)
    assert is_dicom(content)
    assert tags == [int(element.tag) for element in (*read.file_meta, *read)]
    assert dicom_head(path)[SERIES] == "1.2.3.4"


def test_nested_elements_count_too(tmp_path: Path) -> None:
    content = write(tmp_path / "a.dcm", ExplicitVRLittleEndian, says_length=False).read_bytes()

    with pytest.raises(TooManyElements):
        list(top_level_elements(lambda at, size: content[at : at + size], 20))


def test_pixels_in_fragments_are_the_last(tmp_path: Path) -> None:
    content = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED) + bytes(64)

    (element,) = top_level_elements(lambda at, size: content[at : at + size], 20)

    assert (element.tag, element.length, element.start) == (PIXELS, UNDEFINED, 144)


def test_a_header_too_long_to_be_looked_through_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_frames, "_MAX_ELEMENTS", 20)
    path = write(tmp_path / "a.dcm", ExplicitVRLittleEndian, says_length=False)

    with pytest.raises(SlideTooLarge, match="TILED_FULL"):
        dicom_frames.open_dicom(path)
