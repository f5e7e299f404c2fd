"""The DICOM headers of one slide seen through a child process that reads them; this process knows no pydicom.

Nothing that comes back is believed before it is checked.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.dicom.instance_protocol import (
    FRAME_ROW_BYTES,
    INSTANCE_REPLY,
    MAX_ATTRIBUTES_BYTES,
    MAX_FRAMES,
    MAX_METADATA_BYTES,
    InstanceReply,
    InstancesOpened,
    NextInstance,
)
from encoders.dicom.searched_attributes import SEARCHED_ATTRIBUTES
from encoders.tiling.isolation.file_process import FileProcess
from encoders.tiling.isolation.reader_channel import warn_of_refused_limits
from encoders.tiling.isolation.reader_limits import ReaderLimits

# -P: never import from the working directory.
INSTANCE_COMMAND = (sys.executable, "-P", "-m", "encoders.dicom.instance_child")
_MAX_BODY_BYTES = MAX_ATTRIBUTES_BYTES + MAX_METADATA_BYTES + MAX_FRAMES * FRAME_ROW_BYTES
_TAGS = frozenset(it.tag for it in SEARCHED_ATTRIBUTES)
_MAX_VALUES = 64
Attributes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class DescribedFile:
    """One file of a slide. `attributes` are those of `searched_attributes`, as DICOM JSON; `metadata` is the whole
    header in it, None where it is too long or cannot be written.

    `frames`: int64 [frame_count, 2], offset and byte count in the file; None where nobody can say.
    """

    name: str
    sop_instance: str
    transfer_syntax: str
    attributes: Attributes
    metadata: bytes | None
    frames: NDArray[np.int64] | None


class InstanceProcess(FileProcess):
    """A context manager around one slide's child; used by one thread, which must outlive it, for one reading."""

    def __init__(
        self,
        path: Path,
        limits: ReaderLimits,
        *,
        folder: Path | None = None,
        command: Sequence[str] = INSTANCE_COMMAND,
    ) -> None:
        """Without `folder` the one file is described, with it all that are in that folder (see FileProcess)."""
        super().__init__(path, limits, command, INSTANCE_REPLY, folder)

    def described(self) -> Iterator[DescribedFile]:
        """Every file, in the order of their names.

        Raises:
            SlideError: a header cannot be read.
            ReaderDied: the child ended, or said what cannot be.
        """
        for _ in range(self._count):
            reply, body = self._channel.ask(NextInstance(), InstanceReply, max_body_bytes=_MAX_BODY_BYTES)
            described = self._checked(reply, bytes(body))
            if described is None:
                raise self._channel.reject_reply()
            yield described

    def _open(self) -> None:
        opened, _ = self._ask_to_open(InstancesOpened)
        self._count = opened.count
        warn_of_refused_limits(opened.degraded)

    def _checked(self, reply: InstanceReply, body: bytes) -> DescribedFile | None:
        """None for what cannot be."""
        name = os.fsdecode(reply.name)
        path = self._path if self._folder is None else self._folder / name
        if (name != self._path.name) if self._folder is None else not _lies_below(path, self._folder):
            return None
        ends = reply.attributes_bytes, reply.attributes_bytes + reply.metadata_bytes
        if len(body) != ends[1] + reply.frame_count * FRAME_ROW_BYTES:
            return None
        attributes = _checked_attributes(body[: ends[0]])
        frames = np.frombuffer(body, dtype="<i8", offset=ends[1]).reshape(-1, 2)
        metadata = body[ends[0] : ends[1]]
        if attributes is None or not _lie_in_file(frames, path.stat().st_size) or not _is_dataset(metadata):
            return None
        return DescribedFile(
            name=name,
            sop_instance=reply.sop_instance,
            transfer_syntax=reply.transfer_syntax,
            attributes=attributes,
            metadata=metadata or None,
            frames=frames if len(frames) else None,
        )


def _lies_below(path: Path, folder: Path) -> bool:
    return ".." not in path.parts and path.is_relative_to(folder) and path.is_file()


def _lie_in_file(frames: NDArray[np.int64], size_bytes: int) -> bool:
    offsets, lengths = frames[:, 0], frames[:, 1]
    fits = (offsets >= 0) & (offsets <= size_bytes) & (lengths > 0) & (lengths <= size_bytes - offsets)
    return bool(fits.all())


def _checked_attributes(text: bytes) -> Attributes | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not set(found) <= _TAGS:
        return None
    return found if all(_is_attribute(it) for it in found.values()) else None


def _is_dataset(text: bytes) -> bool:
    """Whether it is an object in JSON, or nothing."""
    try:
        return not text or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_attribute(attribute: Any) -> bool:
    if not isinstance(attribute, dict) or not isinstance(attribute.get("vr"), str):
        return False
    if not set(attribute) <= {"vr", "Value"}:
        return False
    values = attribute.get("Value", [])
    return isinstance(values, list) and len(values) <= _MAX_VALUES and all(_is_value(it) for it in values)


def _is_value(value: Any) -> bool:
    """A text or a number; a name is texts by the ways that it is written."""
    if isinstance(value, dict):
        return all(isinstance(it, str) for it in value.values())
    return value is None or isinstance(value, (str, int, float))
