"""The border to a device's own errors: a GPU that has failed is told in our words, whatever was computed on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from encoders.errors import DeviceLost


@contextmanager
def told_as_ours() -> Iterator[None]:
    """Raises DeviceLost for an error of the device itself. Being out of memory is none: a smaller slide may fit."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLost("The GPU has failed; restart the worker, and check the GPU if it fails again.") from error
