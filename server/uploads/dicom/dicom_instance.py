"""What one DICOM instance says of itself, as far as it matters which slide it belongs to and what of it is missing.

Read by `encoders.tiling.dicom_head`: elements stepped over in plain Python, bounded, no pixel looked at. So the API may
do it; whoever decodes anything is a reader process (decision 21).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from encoders.tiling.dicom_elements import IMAGE_TYPE, SERIES
from encoders.tiling.dicom_head import (
    CONCATENATION,
    FOCAL_PLANES,
    FRAME_COLUMNS,
    FRAME_COUNT,
    FRAME_ROWS,
    FRAMES_BEFORE,
    MATRIX_COLUMNS,
    MATRIX_ROWS,
    OPTICAL_PATHS,
    ORGANIZATION,
    PART_COUNT,
    PART_NUMBER,
    SOP_CLASS,
    SOP_INSTANCE,
    STUDY,
    WHOLE_SLIDE,
    dicom_head,
)

# DICOM PS3.5, chapter 9; leading zeros are forbidden there and happen.
UID_PATTERN = re.compile(r"(?=[0-9.]{1,64}\Z)[0-9]+(\.[0-9]+)*")
# What is no level of the slide, and may show a name (PS3.3, C.8.12.4.1.1); a localizer is made of other instances.
NO_LEVELS = frozenset({"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"})


class DicomInstance(BaseModel):
    """One instance. Numbers are None where the file does not say them; `image_type` are its values, in their order."""

    model_config = ConfigDict(frozen=True)

    sop_class: str
    sop_instance: str
    study: str
    series: str
    image_type: tuple[str, ...]
    frame_count: int | None = None
    # How many frames its level has if each tile of the matrix has one; None where they are placed one by one.
    level_frame_count: int | None = None
    concatenation: str | None = None
    part_number: int | None = None
    part_count: int | None = None
    frames_before: int | None = None

    @property
    def is_whole_slide_image(self) -> bool:
        """Whether it is of the class that slides are of."""
        return self.sop_class == WHOLE_SLIDE

    @property
    def is_level(self) -> bool:
        """Whether it is, or is part of, a level: no label, overview or thumbnail."""
        return not NO_LEVELS & set(self.image_type)

    @property
    def is_finest_level(self) -> bool:
        """Whether it is as it was scanned: not resampled from a finer level."""
        return self.is_level and "RESAMPLED" not in self.image_type


def read_instance(path: Path) -> DicomInstance | None:
    """What the file says of itself; None for no DICOM, or without the ids that every instance has. Raises OSError."""
    head = dicom_head(path)
    ids = [str(head.get(tag, "")) for tag in (SOP_CLASS, SOP_INSTANCE, STUDY, SERIES)]
    if not all(UID_PATTERN.fullmatch(uid) for uid in ids):
        return None
    frames = str(head.get(FRAME_COUNT, "1")).strip()
    return DicomInstance(
        sop_class=ids[0],
        sop_instance=ids[1],
        study=ids[2],
        series=ids[3],
        image_type=tuple(value.strip() for value in str(head.get(IMAGE_TYPE, "")).split("\\")),
        frame_count=int(frames) if frames.isdigit() else None,
        level_frame_count=_level_frame_count(head),
        concatenation=_text(head, CONCATENATION),
        part_number=_number(head, PART_NUMBER),
        part_count=_number(head, PART_COUNT),
        frames_before=_number(head, FRAMES_BEFORE),
    )


def _level_frame_count(head: Mapping[int, str | int]) -> int | None:
    """Of TILED_FULL (PS3.3, C.7.6.17.3): every tile of the matrix, on every plane and path."""
    columns, rows, frame_columns, frame_rows, paths, planes = (
        _number(head, tag) or 0
        for tag in (MATRIX_COLUMNS, MATRIX_ROWS, FRAME_COLUMNS, FRAME_ROWS, OPTICAL_PATHS, FOCAL_PLANES)
    )
    if head.get(ORGANIZATION) != "TILED_FULL" or not columns * rows * frame_columns * frame_rows * paths * planes:
        return None
    return -(-columns // frame_columns) * -(-rows // frame_rows) * paths * planes


def _number(head: Mapping[int, str | int], tag: int) -> int | None:
    value = head.get(tag)
    return value if isinstance(value, int) else None


def _text(head: Mapping[int, str | int], tag: int) -> str | None:
    value = head.get(tag)
    return value if isinstance(value, str) and value else None
