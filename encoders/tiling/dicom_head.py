"""The few attributes of a DICOM file that say what kind of thing it is. In plain Python and bounded in every step, so
that also processes that parse no slide may call it; values are as the file says, unchecked."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from encoders.tiling.dicom_elements import (
    IMAGE_TYPE,
    PHOTOMETRIC,
    SERIES,
    TRANSFER_SYNTAX,
    TooManyElements,
    is_dicom,
    top_level_elements,
)

SOP_CLASS, SOP_INSTANCE, STUDY = 0x0002_0002, 0x0008_0018, 0x0020_000D
# Parts of one level: which level, which part of how many, and how many frames come before it.
CONCATENATION, PART_NUMBER, PART_COUNT, FRAMES_BEFORE = 0x0020_9161, 0x0020_9162, 0x0020_9163, 0x0020_9228
FRAME_COUNT, FRAME_ROWS, FRAME_COLUMNS, ORGANIZATION = 0x0028_0008, 0x0028_0010, 0x0028_0011, 0x0020_9311
SAMPLES, BITS_ALLOCATED, BITS_STORED = 0x0028_0002, 0x0028_0100, 0x0028_0101
PLANAR, IS_SIGNED = 0x0028_0006, 0x0028_0103
MATRIX_COLUMNS, MATRIX_ROWS = 0x0048_0006, 0x0048_0007
OPTICAL_PATHS, FOCAL_PLANES = 0x0048_0302, 0x0048_0303
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_TEXTS = frozenset({SOP_CLASS, SOP_INSTANCE, STUDY, CONCATENATION, TRANSFER_SYNTAX, IMAGE_TYPE, SERIES, PHOTOMETRIC})
_TEXTS |= {FRAME_COUNT, ORGANIZATION}
_NUMBERS = dict.fromkeys((SAMPLES, BITS_ALLOCATED, BITS_STORED, PLANAR, IS_SIGNED), "H")
_NUMBERS |= dict.fromkeys((PART_NUMBER, PART_COUNT, FRAME_ROWS, FRAME_COLUMNS), "H")
_NUMBERS |= dict.fromkeys((MATRIX_COLUMNS, MATRIX_ROWS, OPTICAL_PATHS, FOCAL_PLANES, FRAMES_BEFORE), "I")
_MAGIC_BYTES = 132
# What is looked for stands before colour profiles and frames.
_HEAD_BYTES = 2**18
_MAX_ELEMENTS = _HEAD_BYTES // 8
_MAX_TEXT_BYTES = 256
_MAX_FILES = 1_000


def dicom_head(path: Path) -> Mapping[int, str | int]:
    """Values by tag, of those above that come in the file's first 256 KiB; empty for no DICOM file. Raises OSError."""
    found: dict[int, str | int] = {}
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
        if not is_dicom(head):
            return found
        head += file.read(_HEAD_BYTES)
        with suppress(struct.error, TooManyElements):  # the head ends in the middle of something
            for element in top_level_elements(lambda at, size: head[at : at + size], _MAX_ELEMENTS):
                _note(element.tag, head[element.start : element.start + element.length], found)
    return found


def level_heads(path: Path) -> Iterator[Mapping[int, str | int]]:
    """The heads of the levels, in files of their own, of the slide that `path` is one of; a label is none.

    Nothing of what cannot be read: whoever opens the slide says so. Raises nothing.
    """
    with suppress(OSError):
        series = dicom_head(path).get(SERIES)
        for beside in sorted(path.parent.iterdir())[:_MAX_FILES]:
            head = dicom_head(beside) if beside.is_file() else {}
            kind = str(head.get(IMAGE_TYPE, "")).split("\\")
            if head and head.get(SERIES) == series and not {"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"} & set(kind):
                yield head


def _note(tag: int, value: bytes, found: dict[int, str | int]) -> None:
    if tag in _TEXTS and len(value) <= _MAX_TEXT_BYTES:
        found.setdefault(tag, value.decode("ascii", errors="replace").rstrip(" \0"))
    elif tag in _NUMBERS:
        found.setdefault(tag, int(struct.unpack_from(f"<{_NUMBERS[tag]}", value)[0]))
