"""Levels of a DICOM slide that padding makes as large as a finer one: Philips pads each to whole tiles.

OpenSlide tells levels by their size in pixels, and refuses a series with two of one size. The finest of them is kept,
and nothing is lost: it shows what the others show, more finely. Plain Python, as `dicom_head`.
"""

import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

from encoders.tiling.dicom_elements import IMAGE_TYPE, SERIES, TooManyElements, top_level_elements
from encoders.tiling.dicom_head import (
    CONCATENATION,
    MATRIX_COLUMNS,
    MATRIX_ROWS,
    SOP_CLASS,
    WHOLE_SLIDE,
    dicom_head,
)

_SHARED_GROUPS = 0x5200_9229
# PixelSpacing in explicit little-endian, within the shared groups.
_SPACING = b"\x28\x00\x30\x00DS"
_GROUPS_BYTES = 4_096
_MAX_ELEMENTS = 100_000
# Spacings of two levels differ at least by this; focal planes and optical paths have one spacing.
_COARSER_BY = 1.5


def repeated_levels(places: Mapping[str, Path]) -> dict[str, str]:
    """Names of the files to leave out, each with that of the finer level of its size; raises OSError.

    Only where pixel spacings say that one is coarser. Parts of one level (concatenations) are no levels.
    """
    by_size: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, path in places.items():
        head = dicom_head(path)
        size = head.get(SERIES), head.get(MATRIX_COLUMNS), head.get(MATRIX_ROWS)
        is_level = str(head.get(IMAGE_TYPE, "")).split("\\")[2:3] == ["VOLUME"]
        if is_level and None not in size and CONCATENATION not in head and head.get(SOP_CLASS) == WHOLE_SLIDE:
            by_size[size].append(name)
    left_out: dict[str, str] = {}
    for names in by_size.values():
        if len(names) > 1:
            left_out.update(_coarser({name: _spacing_mm(places[name]) for name in names}))
    return left_out


def _coarser(spacings: Mapping[str, float | None]) -> Iterable[tuple[str, str]]:
    """Pairs (a coarser one, the finest); none unless all spacings are known and apart."""
    known = sorted((spacing, name) for name, spacing in spacings.items() if spacing)
    is_apart = all(after[0] >= before[0] * _COARSER_BY for before, after in pairwise(known))
    if len(known) < len(spacings) or not is_apart:
        return []
    return [(name, known[0][1]) for _, name in known[1:]]


def _spacing_mm(path: Path) -> float | None:
    """Of a level's rows, where the header says it for all frames alike."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for element in top_level_elements(partial(_read, file), _MAX_ELEMENTS):
            if element.tag == _SHARED_GROUPS:
                return _spacing_in(_read(file, element.start, min(element.length, _GROUPS_BYTES)))
    except (struct.error, ValueError, TooManyElements):
        pass
    finally:
        os.close(file)
    return None


def _spacing_in(groups: bytes) -> float | None:
    at = groups.find(_SPACING)
    if at < 0:
        return None
    at += len(_SPACING)
    (length,) = struct.unpack_from("<H", groups, at)
    spacing = float(groups[at + 2 : at + 2 + length].split(b"\\")[0])
    return spacing if spacing > 0 else None


def _read(file: int, offset: int, size: int) -> bytes:
    return os.pread(file, size, offset)
