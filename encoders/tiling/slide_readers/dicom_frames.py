"""The frames of DICOM slides: where each lies, and what the header says of their colours.

Reads as little as that takes: the elements before the pixels, in explicit little-endian, which compressed pixels always
are (DICOM PS3.5, A.4). It judges nothing and decodes nothing; what it cannot follow has no frames.
"""

import os
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from encoders.errors import SlideTooLarge
from encoders.tiling.dicom_elements import (
    IMAGE_TYPE,
    ITEM,
    PHOTOMETRIC,
    PIXELS,
    SERIES,
    TRANSFER_SYNTAX,
    UNDEFINED,
    TooManyElements,
    is_dicom,
    top_level_elements,
)

_WANTED = (TRANSFER_SYNTAX, IMAGE_TYPE, SERIES, PHOTOMETRIC)
_J2K_SYNTAXES = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
# A microsecond each. Per-frame groups of a million sparse tiles are ten million where sequences do not say their
# length. A longer header is refused: colours that were not looked at cannot be vouched for.
_MAX_ELEMENTS = 12_000_000
_MAX_FILES = 1_000
_MAX_FRAGMENTS = 4_000_000
_MAX_VALUE_BYTES = 1_024


@dataclass(frozen=True)
class DicomFrames:
    """One instance with compressed pixels; `pixels_at` is where its fragments begin."""

    file: int
    photometric: str
    is_j2k: bool
    series: str
    image_type: tuple[str, ...]
    pixels_at: int

    def fragments(self) -> Iterator[tuple[int, int]]:
        """(offset, byte count) of each, in the file's order, without the table of offsets."""
        at = self.pixels_at
        size = os.fstat(self.file).st_size
        for index in range(_MAX_FRAGMENTS):
            head = os.pread(self.file, 8, at)
            if len(head) < 8:
                return
            group, element, length = struct.unpack("<HHI", head)
            if group << 16 | element != ITEM or at + 8 + length > size:
                return
            if index:
                yield at + 8, length
            at += 8 + length

    def starts_stream(self, offset: int) -> bool:
        """Whether a fragment begins a frame, which may be split over several."""
        return os.pread(self.file, 2, offset) in (b"\xff\xd8", b"\xff\x4f")


def open_dicom(path: Path) -> list[DicomFrames]:
    """The instances of the slide that `path` is one file of: those in its folder that belong to its series.

    Labels and overviews are left out. The files are closed when the instances are let go of. Raises SlideTooLarge for
    a header that is too long to be looked through.
    """
    first = _instance(path)
    if first is None:
        return []
    try:
        names = sorted(entry.path for entry in os.scandir(path.parent) if entry.is_file())[:_MAX_FILES]
    except OSError:
        names = []
    others = (_instance(Path(name)) for name in names if name != str(path))
    found = [first, *(other for other in others if other is not None and other.series == first.series)]
    return [frames for frames in found if not {"LABEL", "OVERVIEW", "LOCALIZER"} & set(frames.image_type)]


def _instance(path: Path) -> DicomFrames | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    frames = None
    try:
        if is_dicom(os.pread(file, 132, 0)):
            frames = _parsed(file)
    except (struct.error, ValueError, OSError):
        frames = None
    except TooManyElements:
        os.close(file)
        raise SlideTooLarge(
            f"A DICOM file of the slide has a header of more than {_MAX_ELEMENTS:,} elements. Export it with fewer "
            "frames in a file, or as TILED_FULL."
        ) from None
    if frames is None:
        os.close(file)
    else:
        weakref.finalize(frames, os.close, file)
    return frames


def _parsed(file: int) -> DicomFrames | None:
    values: dict[int, str] = {}
    read = partial(_read, file)
    for element in top_level_elements(read, _MAX_ELEMENTS):
        if element.tag == PIXELS:
            break
        if element.tag in _WANTED and element.length <= _MAX_VALUE_BYTES:
            values[element.tag] = read(element.start, element.length).decode("ascii").rstrip(" \0")
    else:
        return None
    syntax = values.get(TRANSFER_SYNTAX, "")
    if element.length != UNDEFINED or syntax not in _J2K_SYNTAXES + _JPEG_SYNTAXES:
        return None
    image_type = tuple(values.get(IMAGE_TYPE, "").split("\\"))
    series, photometric = values.get(SERIES, ""), values.get(PHOTOMETRIC, "")
    return DicomFrames(file, photometric, syntax in _J2K_SYNTAXES, series, image_type, element.start)


def _read(file: int, offset: int, size: int) -> bytes:
    return os.pread(file, size, offset)
