"""Writes a safetensors file tensor by tensor: whatever the file's size, memory holds one tensor of it."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shape = tuple[int, ...]
# A manifest's dtypes, and those of quantised matrices: 8-bit floats, and 32-bit integers that eight weights share.
StoredDtype = Literal["float32", "float16", "bfloat16", "float8_e4m3fn", "int32"]
TORCH_DTYPES: Final[dict[StoredDtype, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "int32": torch.int32,
}
# The format's own names: https://github.com/huggingface/safetensors#format
_FORMAT_DTYPES: Final[dict[StoredDtype, str]] = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "int32": "I32",
}
_HEADER_ALIGNMENT: Final = 8


@dataclass(frozen=True)
class TensorEntry:
    """One tensor to be written."""

    name: str
    shape: Shape
    dtype: StoredDtype

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())

    @property
    def data_bytes(self) -> int:
        """How many bytes these take."""
        return self.elements * TORCH_DTYPES[self.dtype].itemsize


def write_safetensors(path: Path, entries: Sequence[TensorEntry], tensors: Iterable[Tensor]) -> int:
    """Writes the tensors, which come in the order and dtypes of `entries`; returns the bytes of their data.

    The file is on disk when this returns.
    """
    with path.open("xb") as file:
        file.write(_header(entries))
        for entry, tensor in zip(entries, tensors, strict=True):
            planned = (entry.shape, TORCH_DTYPES[entry.dtype])
            assert (tuple(tensor.shape), tensor.dtype) == planned, f"{entry.name} was planned otherwise"
            file.write(_bytes_of(tensor).data)
        file.flush()
        os.fsync(file.fileno())
    return sum(entry.data_bytes for entry in entries)


def _header(entries: Sequence[TensorEntry]) -> bytes:
    # transformers refuses a file that does not name its framework.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        end = start + entry.data_bytes
        header[entry.name] = {
            "dtype": _FORMAT_DTYPES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    return np.asarray(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
