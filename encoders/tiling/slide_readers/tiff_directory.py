"""Tells an interrupted upload of a TIFF-based slide from a file that never was one. Reads offsets only."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _BIG = 42, 43
# Slides have tens of directories; a longer chain is a loop.
_MAX_DIRECTORIES = 1_000


def is_truncated_tiff(path: Path) -> bool:
    """Whether this is a TIFF (classic or Big) one of whose directories lies beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return _runs_past_end(file, size)
        except (struct.error, OSError):
            # A field ends beyond the file although its start lay within.
            return file.tell() >= size > 0 and _starts_like_tiff(file)


def _starts_like_tiff(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(2) in _BYTE_ORDERS


def _runs_past_end(file: BinaryIO, size: int) -> bool:
    order = _BYTE_ORDERS.get(file.read(2))
    version = struct.unpack(f"{order}H", file.read(2))[0] if order else 0
    if version not in (_CLASSIC, _BIG):
        return False
    # Width of an offset, of a directory's entry count, and of one entry.
    offset, count, entry_bytes = ("I", "H", 12) if version == _CLASSIC else ("Q", "Q", 20)
    file.seek(4 if version == _CLASSIC else 8, os.SEEK_SET)
    for _ in range(_MAX_DIRECTORIES):
        start = _number(file, f"{order}{offset}")
        if start == 0:
            return False
        if start >= size:
            return True
        file.seek(start)
        entries = _number(file, f"{order}{count}")
        if file.tell() + entries * entry_bytes >= size:
            return True
        file.seek(entries * entry_bytes, os.SEEK_CUR)
    return False


def _number(file: BinaryIO, code: str) -> int:
    return int(struct.unpack(code, file.read(struct.calcsize(code)))[0])
