"""The few attributes of a DICOM file that say what kind of thing it is. In plain Python and bounded in every step, so
that also processes that parse no slide may call it; values are as the file says, unchecked."""

import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SOP_CLASS, TRANSFER_SYNTAX = 0x0002_0002, 0x0002_0010
IMAGE_TYPE, SERIES = 0x0008_0008, 0x0020_000E
SAMPLES, PHOTOMETRIC, BITS_ALLOCATED, BITS_STORED = 0x0028_0002, 0x0028_0004, 0x0028_0100, 0x0028_0101
FOCAL_PLANES = 0x0048_0303
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_TEXTS = frozenset({SOP_CLASS, TRANSFER_SYNTAX, IMAGE_TYPE, SERIES, PHOTOMETRIC})
_NUMBERS = {SAMPLES: "H", BITS_ALLOCATED: "H", BITS_STORED: "H", FOCAL_PLANES: "I"}
_MAGIC, _MAGIC_AT, _FIRST_AT = b"DICM", 128, 132
# What is looked for stands before colour profiles and frames.
_HEAD_BYTES = 2**18
_MAX_TEXT_BYTES = 256
_LONG_FORMS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_IMPLICIT = "1.2.840.10008.1.2"
_ITEM_GROUP, _ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE, 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is one of DICOM's."""
    return head[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC


def dicom_head(path: Path) -> Mapping[int, str | int]:
    """Values by tag, of those above that come in the file's first 256 KiB; empty for no DICOM file. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    found: dict[int, str | int] = {}
    if is_dicom(head):
        with suppress(struct.error, IndexError):  # the head ends in the middle of something
            _walk(head, found)
    return found


def _walk(head: bytes, found: dict[int, str | int]) -> None:
    """Elements in order; what is nested in a sequence of undefined length is passed over by counting its ends."""
    at, depth = _FIRST_AT, 0
    while at < len(head):
        group, element = struct.unpack_from("<HH", head, at)
        tag = group << 16 | element
        is_explicit = group == 2 or found.get(TRANSFER_SYNTAX) != _IMPLICIT
        if group == _ITEM_GROUP or not is_explicit:
            (length,), start = struct.unpack_from("<I", head, at + 4), at + 8
            is_sequence = length == _UNDEFINED
        elif head[at + 4 : at + 6] in _LONG_FORMS:
            (length,), start = struct.unpack_from("<I", head, at + 8), at + 12
            is_sequence = length == _UNDEFINED
        else:
            (length,), start, is_sequence = struct.unpack_from("<H", head, at + 6), at + 8, False
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth, at = depth - 1, start
            continue
        if is_sequence:  # or an item
            depth, at = depth + 1, start
            continue
        if depth <= 0:
            _note(tag, head[start : start + length], found)
        at = start + length


def _note(tag: int, value: bytes, found: dict[int, str | int]) -> None:
    if tag in _TEXTS and len(value) <= _MAX_TEXT_BYTES:
        found.setdefault(tag, value.decode("ascii", errors="replace").rstrip(" \0"))
    elif tag in _NUMBERS:
        found.setdefault(tag, int(struct.unpack_from(f"<{_NUMBERS[tag]}", value)[0]))
