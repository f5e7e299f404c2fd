"""Recognises by its first bytes whether a file can be a slide. Parses nothing, and starts no reader for what is none.

It knows what OpenSlide (tag v4.0.1) asks of each format before it reads any further; what passes may still be no slide.
"""

from pathlib import Path

from encoders.tiling.dicom_elements import is_dicom

_TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # Aperio, Hamamatsu NDPI, Leica, Philips, Ventana …
_SQLITE_MAGIC = b"SQLite format 3\x00"  # Sakura
_ZEISS_MAGIC = b"ZISRAWFILE"
# Hamamatsu's index, a text of at most 64 KiB with a section of this name.
_HAMAMATSU_SECTION, _HAMAMATSU_MOST_BYTES = b"Virtual Microscope Specimen]", 64 * 1024
# MIRAX's index is any file of this name with a folder beside it.
_MIRAX_SUFFIX = ".mrxs"


def name_to_open(name: str) -> str:
    """The name, or path, under which OpenSlide takes a file for what it is: of MIRAX's index, which may be .MRXS, with
    the end in lower case."""
    end = len(name) - len(_MIRAX_SUFFIX)
    return name[:end] + _MIRAX_SUFFIX if name[end:].lower() == _MIRAX_SUFFIX else name


def may_be_slide(path: Path, name: str = "") -> bool:
    """Whether a reader should look at the file, which is called `name` among several; raises OSError."""
    if name.lower().endswith(_MIRAX_SUFFIX):
        return True
    with path.open("rb") as file:
        head = file.read(_HAMAMATSU_MOST_BYTES)
    return head.startswith((*_TIFF_MAGICS, _SQLITE_MAGIC, _ZEISS_MAGIC)) or is_dicom(head) or _HAMAMATSU_SECTION in head
