"""What of a DICOM series is known to be missing, and what its files say."""

from pathlib import Path

import pytest
from dicom_series import as_label, in_parts, series_of, write_series

from encoders.tiling.dicom_head import WHOLE_SLIDE
from server.uploads.dicom.dicom_instance import DicomInstance, read_instance
from server.uploads.dicom.missing_parts import missing_parts


def instance(*image_type: str, **said: object) -> DicomInstance:
    return DicomInstance(
        sop_class=WHOLE_SLIDE, sop_instance="1.2", study="1.3", series="1.4", image_type=image_type, **said
    )  # type: ignore[arg-type]


FINEST = instance("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
COARSER = instance("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")


def part(number: int, **said: object) -> DicomInstance:
    return FINEST.model_copy(update={"concatenation": "1.5", "part_number": number, "frame_count": 2, **said})


@pytest.mark.parametrize(
    ("instances", "missing"),
    [
        ([FINEST], []),
        ([COARSER, FINEST], []),
        ([COARSER], ["The level of full resolution is missing."]),
        ([instance("ORIGINAL", "PRIMARY", "LABEL", "NONE")], ["The level of full resolution is missing."]),
        ([part(1, part_count=2), part(2, part_count=2)], []),
        ([part(2, part_count=2)], ["Part 1 of 2 of a level is missing."]),
        ([part(1, part_count=4), part(3, part_count=4)], ["Parts 2, 4 of 4 of a level are missing."]),
        ([part(1), part(3)], ["Part 2 of 3 of a level is missing."]),
        (
            [part(1, level_frame_count=8), part(2, level_frame_count=8)],
            ["A level has 4 of its 8 frames; its other parts are missing."],
        ),
        ([part(1, level_frame_count=4), part(2, level_frame_count=4)], []),
    ],
)
def test_what_is_missing_is_said_and_nothing_else(instances: list[DicomInstance], missing: list[str]) -> None:
    assert missing_parts(instances) == missing


def test_a_file_says_which_instance_it_is(tmp_path: Path) -> None:
    finest, coarser = write_series(tmp_path / "series")
    label = read_instance(as_label(finest))
    first, second = (read_instance(path) for path in in_parts(finest, 2))
    resampled = read_instance(coarser)

    assert first is not None
    assert second is not None
    assert resampled is not None
    assert label is not None
    assert first.series == series_of(coarser) == resampled.series
    assert (first.is_finest_level, resampled.is_finest_level, label.is_level) == (True, False, False)
    assert (first.part_number, second.part_number, second.part_count) == (1, 2, 2)
    assert (first.frame_count, second.frames_before, first.level_frame_count) == (2, 2, 4)
    assert missing_parts([second, resampled]) == ["Part 1 of 2 of a level is missing."]


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\x08\0\x18\0UI"])
def test_what_is_no_instance_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert read_instance(path) is None
