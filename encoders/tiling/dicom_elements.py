"""DICOM's elements in the order of the file, stepped over without being understood: DICOM PS3.5, chapter 7.

Bounded in every step and in plain Python, so that processes that parse no slide may use it too. Values are as the file
says, unchecked.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TRANSFER_SYNTAX, IMAGE_TYPE, SERIES = 0x0002_0010, 0x0008_0008, 0x0020_000E
PHOTOMETRIC, PIXELS = 0x0028_0004, 0x7FE0_0010
ITEM, UNDEFINED = 0xFFFE_E000, 0xFFFF_FFFF
# `read(offset, byte count)`; fewer bytes at the end of what there is.
Read = Callable[[int, int], bytes]
_MAGIC, _MAGIC_AT = b"DICM", 128
_FIRST_AT = _MAGIC_AT + len(_MAGIC)
_LONG_FORMS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_IMPLICIT = b"1.2.840.10008.1.2"
_META_GROUP, _ITEM_GROUP = 0x0002, 0xFFFE
_ENDS = (0xFFFE_E00D, 0xFFFE_E0DD)
_HEADER_BYTES = 12


@dataclass(frozen=True)
class Element:
    """Where a value of `length` bytes begins; UNDEFINED for sequences, and for pixels in fragments."""

    tag: int
    length: int
    start: int


class TooManyElements(Exception):
    """What comes behind them was not looked at."""


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is one of DICOM's."""
    return head[_MAGIC_AT:_FIRST_AT] == _MAGIC


def top_level_elements(read: Read, most: int) -> Iterator[Element]:
    """Those that are not nested in others, up to pixels in fragments; `most` bounds nested ones too.

    Raises:
        struct.error: the file ends before.
        TooManyElements: there are more than `most`.
    """
    at, depth, is_implicit = _FIRST_AT, 0, False
    for _ in range(most):
        head = read(at, _HEADER_BYTES)
        group, number = struct.unpack_from("<HH", head)
        tag = group << 16 | number
        if group == _ITEM_GROUP or (is_implicit and group != _META_GROUP):
            (length,), start = struct.unpack_from("<I", head, 4), at + 8
        elif head[4:6] in _LONG_FORMS:
            (length,), start = struct.unpack_from("<I", head, 8), at + 12
        else:
            (length,), start = struct.unpack_from("<H", head, 6), at + 8
        if tag in _ENDS:
            depth, at = depth - 1, start
            continue
        if depth <= 0:
            yield Element(tag, length, start)
        if tag == TRANSFER_SYNTAX:
            is_implicit = read(start, min(length, 64)).rstrip(b" \0") == _IMPLICIT
        if length == UNDEFINED:  # a sequence or an item in one: its elements come next
            if tag == PIXELS:
                return
            depth, at = depth + 1, start
        else:
            at = start + length
    raise TooManyElements
