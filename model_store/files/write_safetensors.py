"""Writes a safetensors file tensor by tensor: whatever the file's size, memory holds one tensor of it."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.manifest import Dtype

Shape = tuple[int, ...]
TORCH_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# The format's own names: https://github.com/huggingface/safetensors#format
_FORMAT_DTYPES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_HEADER_ALIGNMENT: Final = 8


@dataclass(frozen=True)
class TensorEntry:
    """Name and shape of one tensor to be written."""

    name: str
    shape: Shape

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())


def write_safetensors(path: Path, dtype: Dtype, entries: Sequence[TensorEntry], tensors: Iterable[Tensor]) -> int:
    """Writes the tensors, which come in the order of `entries`, as `dtype`; returns the bytes of their data.

    The file is on disk when this returns.
    """
    item_bytes = TORCH_DTYPES[dtype].itemsize
    with path.open("xb") as file:
        file.write(_header(dtype, entries, item_bytes))
        for entry, tensor in zip(entries, tensors, strict=True):
            assert tuple(tensor.shape) == entry.shape, f"{entry.name} was planned with another shape"
            file.write(_bytes_of(tensor.to(TORCH_DTYPES[dtype])).data)
        file.flush()
        os.fsync(file.fileno())
    return sum(entry.elements for entry in entries) * item_bytes


def _header(dtype: Dtype, entries: Sequence[TensorEntry], item_bytes: int) -> bytes:
    # transformers refuses a file that does not name its framework.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        end = start + entry.elements * item_bytes
        header[entry.name] = {
            "dtype": _FORMAT_DTYPES[dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    return np.asarray(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
