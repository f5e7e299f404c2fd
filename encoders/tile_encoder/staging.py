"""The buffers of one batch on its way to the device and back.

On CUDA: page-locked host memory, pixels copied on a stream of their own while the batch before is computed, features
copied back behind the computation, and nobody waits before the features are asked for. On the CPU the same calls copy
nothing and compute at once.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Staging:
    """Pixels in, features out, again and again; one batch at a time.

    The order of use: write `pixels`, `to_device`, compute, `bring_back`, `features`. `pixels` may be written again
    once `features` has returned.
    """

    def __init__(self, batch_tiles: int, input_px: int, device: torch.device, copies: torch.cuda.Stream | None):
        shape = (batch_tiles, input_px, input_px, 3)
        self._copies = copies
        self._pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=copies is not None)
        self.pixels: NDArray[np.uint8] = self._pixels.numpy()
        self._on_device = self._pixels
        self._features: Tensor | None = None
        self._back: Any = None
        if copies is not None:
            self._on_device = torch.empty_like(self._pixels, device=device)
            # The allocator may have given memory that work already queued still uses.
            copies.wait_stream(torch.cuda.current_stream(device))
            # Blocking: a thread that waits for the GPU leaves its core to those who decode slides.
            self._back = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def to_device(self) -> Tensor:
        """uint8 [B, I, I, 3] on the device, there before anything that is queued on the current stream from now on."""
        if self._copies is not None:
            with torch.cuda.stream(self._copies):
                self._on_device.copy_(self._pixels, non_blocking=True)
            torch.cuda.current_stream(self._on_device.device).wait_stream(self._copies)
        return self._on_device

    def bring_back(self, features: Tensor) -> None:
        """Takes float32 [B, D] on the device, computed on the current stream."""
        if self._back is None:
            self._features = features
            return
        if self._features is None:
            self._features = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        self._features.copy_(features, non_blocking=True)
        self._back.record(torch.cuda.current_stream(features.device))

    def is_back(self) -> bool:
        """Whether `features` would not wait."""
        try:
            return self._back is None or bool(self._back.query())
        except RuntimeError:  # of a device that has failed, which `features` will say
            return True

    def features(self, count: int) -> NDArray[np.float32]:
        """float32 [count, D], a copy: waits until they are there."""
        if self._back is not None:
            self._back.synchronize()
        assert self._features is not None, "a batch was started"
        return np.array(self._features[:count].numpy())


def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """What all stagings of one encoder copy pixels on; None on the CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
