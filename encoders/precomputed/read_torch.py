"""What torch.save wrote: one tensor, or GigaPath's dictionary of two. Runs in the child only; pickled objects are
refused by torch's own `weights_only` unpickler, which calls nothing that the file names."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.errors import UnreadableSlide, UnusableFeatures
from encoders.precomputed.given_features import LevelsShape

# The name that the published pipeline gives to tile features, and ours.
_FEATURE_NAMES = ("tile_embeds", "features")
# What torch raises for archives that are cut, contradict themselves or want too much memory; anything else ends the
# child, which is as good an answer.
_DAMAGE = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
_WHAT_TO_SEND = (
    "The .pt file must hold one tensor of slide features, or a dictionary of exactly two tensors, "
    "`tile_embeds` (or `features`) and `coords`."
)


class TorchFeatures:
    """A loaded file."""

    def __init__(self, path: Path) -> None:
        self._features, self._coords = _tensors(_load(path))
        if not self._features.is_floating_point():
            raise UnusableFeatures("The features must be floating-point numbers; save them so.")
        if self._features.ndim == 3 and self._features.shape[0] == 1:
            self._features = self._features[0]
        if self._features.ndim != 2:
            raise UnusableFeatures("Features must be an array of rows × columns, or 1 × rows × columns; save them so.")

    levels: LevelsShape | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; a leading axis of one is dropped."""
        return self._features.shape[0], self._features.shape[1]

    def coords(self) -> NDArray[np.generic] | None:
        """The tensor `coords`."""
        if self._coords is None:
            return None
        if self._coords.shape != (self._features.shape[0], 2):
            raise UnusableFeatures(
                "`coords` must have one row of level-0 (x, y) for each row of features; save them so."
            )
        exact = torch.float64 if self._coords.is_floating_point() else torch.int64
        return np.asarray(self._coords.to(exact).numpy())

    def statements(self) -> dict[str, object]:
        """None: a tensor has no attributes."""
        return {}

    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        """Some rows."""
        return np.asarray(self._features[first : first + count].to(torch.float32).numpy())


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnusableFeatures(f"The .pt file holds pickled objects, which are not read. {_WHAT_TO_SEND}") from error
    except _DAMAGE as error:
        raise UnreadableSlide(
            "The .pt file is cut or damaged, or needs more memory than its reader is allowed; save it again."
        ) from error


def _tensors(loaded: Any) -> tuple[Tensor, Tensor | None]:
    if type(loaded) is dict and len(loaded) == 2:
        names = [name for name in _FEATURE_NAMES if name in loaded]
        if names and "coords" in loaded:
            return _plain(loaded[names[0]]), _plain(loaded["coords"])
    return _plain(loaded), None


def _plain(value: Any) -> Tensor:
    """A dense tensor in memory: no subclass, not sparse, quantised, complex or on `meta`."""
    if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu":
        raise UnusableFeatures(_WHAT_TO_SEND)
    if value.is_quantized or value.is_complex() or value.dtype == torch.bool:
        raise UnusableFeatures(_WHAT_TO_SEND)
    return value.detach()
