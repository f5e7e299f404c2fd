"""Recognises the kind of a features file by its first bytes, never by its name. Parses nothing."""

import re
from pathlib import Path
from typing import Literal

FeaturesKind = Literal["hdf5", "torch"]
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
# A ZIP entry's header: the name's length at 26, the name at 30. torch.save writes `<archive>/data.pkl` first.
_ZIP_NAME_LENGTH_AT, _ZIP_NAME_AT = 26, 30
_TORCH_FIRST_ENTRY = re.compile(rb"[^/\x00]{1,255}/data\.pkl")
_HEAD_BYTES = 512


def features_kind(path: Path) -> FeaturesKind | None:
    """ "hdf5", "torch" (what torch.save writes since 1.6), or None for anything else. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_HDF5_MAGIC):
        return "hdf5"
    return "torch" if _is_torch_archive(head) else None


def _is_torch_archive(head: bytes) -> bool:
    length = int.from_bytes(head[_ZIP_NAME_LENGTH_AT : _ZIP_NAME_AT - 2], "little")
    name = head[_ZIP_NAME_AT : _ZIP_NAME_AT + length]
    return head.startswith(_ZIP_MAGIC) and _TORCH_FIRST_ENTRY.fullmatch(name) is not None
