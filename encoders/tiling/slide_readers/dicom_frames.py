"""The frames of DICOM slides: where each lies, and what the header says of their colours.

Reads as little as that takes: the elements before the pixels, in explicit little-endian, which compressed pixels always
are (DICOM PS3.5, A.4). It judges nothing and decodes nothing; what it cannot follow has no frames.
"""

import os
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC, _MAGIC_AT = b"DICM", 128
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_TRANSFER_SYNTAX, _IMAGE_TYPE, _SERIES = 0x00020010, 0x00080008, 0x0020000E
_PHOTOMETRIC, _PIXELS = 0x00280004, 0x7FE00010
_WANTED = (_TRANSFER_SYNTAX, _IMAGE_TYPE, _SERIES, _PHOTOMETRIC)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_J2K_SYNTAXES = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
# Per-frame groups of a large sparse slide are some ten million elements; a reader's deadline bounds those too.
_MAX_ELEMENTS = 100_000
_MAX_DEPTH = 16
_MAX_FILES = 1_000
_MAX_FRAGMENTS = 4_000_000
_MAX_VALUE_BYTES = 1_024
_HEADER_BYTES = 12


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
            if group << 16 | element != _ITEM or at + 8 + length > size:
                return
            if index:
                yield at + 8, length
            at += 8 + length

    def starts_stream(self, offset: int) -> bool:
        """Whether a fragment begins a frame, which may be split over several."""
        return os.pread(self.file, 2, offset) in (b"\xff\xd8", b"\xff\x4f")


def open_dicom(path: Path) -> list[DicomFrames]:
    """The instances of the slide that `path` is one file of: those in its folder that belong to its series.

    Labels and overviews are left out. The files are closed when the instances are let go of.
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
        if os.pread(file, len(_MAGIC), _MAGIC_AT) == _MAGIC:
            frames = _parsed(file)
    except (struct.error, ValueError, OSError):
        frames = None
    if frames is None:
        os.close(file)
    else:
        weakref.finalize(frames, os.close, file)
    return frames


def _parsed(file: int) -> DicomFrames | None:
    values: dict[int, str] = {}
    elements = _Elements(file)
    at = _MAGIC_AT + len(_MAGIC)
    while True:
        tag, length, start = elements.header(at)
        if tag == _PIXELS:
            break
        if tag in _WANTED and length <= _MAX_VALUE_BYTES:
            values[tag] = os.pread(file, length, start).decode("ascii").rstrip(" \0")
        at = elements.after(start, length)
    syntax = values.get(_TRANSFER_SYNTAX, "")
    if length != _UNDEFINED or syntax not in _J2K_SYNTAXES + _JPEG_SYNTAXES:
        return None
    image_type = tuple(values.get(_IMAGE_TYPE, "").split("\\"))
    series, photometric = values.get(_SERIES, ""), values.get(_PHOTOMETRIC, "")
    return DicomFrames(file, photometric, syntax in _J2K_SYNTAXES, series, image_type, start)


class _Elements:
    """Steps from element to element; raises ValueError for what is none, and when there are too many."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._left = _MAX_ELEMENTS

    def header(self, at: int) -> tuple[int, int, int]:
        """Tag, length of the value, and where that begins."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many elements")
        head = os.pread(self._file, _HEADER_BYTES, at)
        group, element = struct.unpack_from("<HH", head)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, struct.unpack_from("<I", head, 4)[0], at + 8
        if head[4:6] in _LONG_VRS:
            return tag, struct.unpack_from("<I", head, 8)[0], at + 12
        return tag, struct.unpack_from("<H", head, 6)[0], at + 8

    def after(self, start: int, length: int, depth: int = 0) -> int:
        """Where the value ends, of a sequence or an item of undefined length too."""
        if length != _UNDEFINED:
            return start + length
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        at = start
        while True:
            tag, inner_length, inner_start = self.header(at)
            if tag in (_ITEM_END, _SEQUENCE_END):
                return inner_start
            at = self.after(inner_start, inner_length, depth + 1)
