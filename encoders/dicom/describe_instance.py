"""The child's work: a DICOM file's header as JSON, and where its frames lie. pydicom reads what a stranger wrote here,
so this runs in the sandbox alone."""

import json
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from encoders.dicom.instance_protocol import MAX_FRAMES, MAX_METADATA_BYTES
from encoders.dicom.searched_attributes import SEARCHED_ATTRIBUTES
from encoders.errors import UnreadableSlide
from encoders.tiling.dicom_elements import ITEM, PIXELS, UNDEFINED, TooManyElements, top_level_elements

# Of a thousand tiles placed one by one about 0.7 MB. Longer ones take seconds, and gigabytes as objects.
_MAX_HEADER_BYTES = 4 * 2**20
_MAX_ELEMENTS = 12_000_000
_MAX_VALUE_CHARS = 1_024
_AVAILABLE_TRANSFER_SYNTAX = "00083002"
_FRAME_TAGS = ("SOPClassUID", "SamplesPerPixel", "BitsAllocated")
# What pydicom raises for values that JSON, or their kind, does not allow.
_UNWRITABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError)
_NO_FRAMES: NDArray[np.int64] = np.empty((0, 2), dtype="<i8")


@dataclass(frozen=True)
class InstanceDescription:
    """`attributes` and `metadata` are JSON; `metadata` is empty where it cannot be written.

    `frames`: int64 [frame_count, 2], offset and byte count in the file; [0, 2] where nobody can say.
    """

    sop_instance: str
    transfer_syntax: str
    attributes: bytes
    metadata: bytes
    frames: NDArray[np.int64]


def describe_instance(path: Path) -> InstanceDescription:
    """Describe one file.

    Raises:
        UnreadableSlide: its header cannot be read.
    """
    warnings.simplefilter("ignore")  # they quote values
    try:
        pixels_at, pixels_length = _pixels(path)
        is_short = pixels_at <= _MAX_HEADER_BYTES
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=None if is_short else _tags())
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        return InstanceDescription(
            sop_instance=str(dataset.SOPInstanceUID),
            transfer_syntax=syntax,
            attributes=_attributes(dataset),
            metadata=_metadata(dataset, syntax) if is_short else b"",
            frames=_frames(path, dataset, pixels_at, pixels_length),
        )
    except MemoryError:
        raise
    except Exception as error:  # pydicom lets through whatever a wrong value leads to
        raise UnreadableSlide("A DICOM header of the slide cannot be read; export the series again.") from error


def _tags() -> list[Any]:
    return [*(it.keyword for it in SEARCHED_ATTRIBUTES), *_FRAME_TAGS]


def _attributes(dataset: FileDataset) -> bytes:
    """Those that can be searched for; what is too long to be searched for, or cannot be written, is left out."""
    kept = {}
    for it in SEARCHED_ATTRIBUTES:
        if it.keyword not in dataset:
            continue
        with suppress(*_UNWRITABLE):
            written = dataset[it.keyword].to_json_dict(None, 0)
            if len(json.dumps(written, allow_nan=False)) <= _MAX_VALUE_CHARS:
                kept[it.tag] = written
    return json.dumps(kept, allow_nan=False).encode()


def _metadata(dataset: FileDataset, syntax: str) -> bytes:
    """Empty where it cannot be written as JSON, or is longer than anybody should read at once."""
    try:
        written = dataset.to_json_dict(suppress_invalid_tags=True)
        written[_AVAILABLE_TRANSFER_SYNTAX] = {"vr": "UI", "Value": [syntax]}
        text = json.dumps(dict(sorted(written.items())), allow_nan=False, separators=(",", ":")).encode()
    except _UNWRITABLE:
        return b""
    return text if len(text) <= MAX_METADATA_BYTES else b""


def _pixels(path: Path) -> tuple[int, int]:
    """Where the pixels begin, and how many bytes they are or UNDEFINED; the file's size and 0 where there are none."""
    with path.open("rb", buffering=2**16) as file:
        try:
            for element in top_level_elements(partial(_read_at, file), _MAX_ELEMENTS):
                if element.tag == PIXELS:
                    return element.start, element.length
        except (struct.error, TooManyElements):
            pass
    return path.stat().st_size, 0


def _read_at(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    content: bytes = file.read(size)
    return content


def _frames(path: Path, dataset: FileDataset, at: int, length: int) -> NDArray[np.int64]:
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if not 0 < count <= MAX_FRAMES or not length:
        return _NO_FRAMES
    size_bytes = path.stat().st_size
    if length == UNDEFINED:
        with path.open("rb") as file:
            found = list(_fragments(partial(os.pread, file.fileno()), at, size_bytes, count))
        return np.array(found, dtype="<i8") if len(found) == count else _NO_FRAMES
    bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
    each = bits // 8
    if bits % 8 or not each or count * each > length or at + count * each > size_bytes:
        return _NO_FRAMES
    offsets = at + each * np.arange(count, dtype="<i8")
    return np.stack([offsets, np.full(count, each, dtype="<i8")], axis=1)


def _fragments(read: Callable[[int, int], bytes], at: int, size_bytes: int, most: int) -> Iterator[tuple[int, int]]:
    """(offset, byte count) of each, at most one more than `most`; of one a frame, the frames."""
    for index in range(most + 2):
        head = _head(read(8, at))
        if head is None or head[0] != ITEM or at + 8 + head[1] > size_bytes:
            return
        if index:  # the first is the table of offsets
            yield at + 8, head[1]
        at += 8 + head[1]


def _head(content: bytes) -> tuple[int, int] | None:
    if len(content) < 8:
        return None
    group, element, length = struct.unpack("<HHI", content)
    return group << 16 | element, length
