"""MIRAX by a writer of our own, as little of the format as OpenSlide reads: whole JPEG tiles, levels that halve.

An index file of two tables: hierarchical records, each a chain of pages with (image, offset, length, file) entries.
"""

import struct
from collections.abc import Collection, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_ID = "0123456789ABCDEF0123456789ABCDEF"
_START = 40
_QUALITY = 96


def write_mirax(
    folder: Path,
    levels: Sequence[NDArray[np.uint8]],
    tile_px: int,
    mpp: float,
    missing: Collection[tuple[int, int]],
) -> Path:
    """`levels` are RGB, each half of the one before; tiles of level 0 at (row, column) `missing` are not stored.

    Nor are tiles of a coarser level that would show nothing else.
    """
    height, width = levels[0].shape[:2]
    columns, rows = width // tile_px, height // tile_px
    path = folder / "drawn.mrxs"
    parts = folder / "drawn"
    parts.mkdir(parents=True)
    data = bytearray(b"\0" * _START)
    pages = []
    for index, level in enumerate(levels):
        step = 2**index
        entries = b""
        for row in range(0, rows, step):
            for column in range(0, columns, step):
                if all((r, c) in missing for r in range(row, row + step) for c in range(column, column + step)):
                    continue
                x, y = column // step * tile_px, row // step * tile_px
                stream = _jpeg(level[y : y + tile_px, x : x + tile_px])
                entries += struct.pack("<4i", row * columns + column, len(data), len(stream), 0)
                data += stream
        pages.append(entries)
    (parts / "Index.dat").write_bytes(_index(pages))
    (parts / "Data0000.dat").write_bytes(bytes(data))
    (parts / "Slidedat.ini").write_text("\ufeff" + _ini(columns, rows, len(levels), tile_px, mpp), encoding="utf-8")
    path.write_bytes(_jpeg(levels[-1]))
    return path


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=_QUALITY, subsampling="444"))


def _index(pages: Sequence[bytes]) -> bytes:
    """Version and id, pointers to both tables, a pointer for each level, then its page."""
    head = b"01.02" + _ID.encode()
    table_at = len(head) + 8
    at = table_at + 4 * len(pages)
    pointers, body = b"", b""
    for entries in pages:
        pointers += struct.pack("<i", at)
        page = struct.pack("<2i", 0, at + 8) + struct.pack("<2i", len(entries) // 16, 0) + entries
        body += page
        at += len(page)
    return head + struct.pack("<2i", table_at, at) + pointers + body + struct.pack("<2i", 0, 0)


def _ini(columns: int, rows: int, levels: int, tile_px: int, mpp: float) -> str:
    lines = [
        "[GENERAL]",
        "SLIDE_VERSION = 01.02",
        f"SLIDE_ID = {_ID}",
        f"IMAGENUMBER_X = {columns}",
        f"IMAGENUMBER_Y = {rows}",
        f"OBJECTIVE_MAGNIFICATION = {10 / mpp:.0f}",
        "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]",
        "INDEXFILE = Index.dat",
        "HIER_COUNT = 1",
        "NONHIER_COUNT = 0",
        "HIER_0_NAME = Slide zoom level",
        f"HIER_0_COUNT = {levels}",
    ]
    for level in range(levels):
        lines += [f"HIER_0_VAL_{level} = Z{level}", f"HIER_0_VAL_{level}_SECTION = LAYER_0_LEVEL_{level}_SECTION"]
    lines += ["[DATAFILE]", "FILE_COUNT = 1", "FILE_0 = Data0000.dat"]
    for level in range(levels):
        lines += [
            f"[LAYER_0_LEVEL_{level}_SECTION]",
            "OVERLAP_X = 0",
            "OVERLAP_Y = 0",
            f"MICROMETER_PER_PIXEL_X = {mpp * 2**level}",
            f"MICROMETER_PER_PIXEL_Y = {mpp * 2**level}",
            "IMAGE_FORMAT = JPEG",
            "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {tile_px}",
            f"DIGITIZER_HEIGHT = {tile_px}",
            f"IMAGE_CONCAT_FACTOR = {int(level > 0)}",
        ]
    return "\r\n".join(lines) + "\r\n"
