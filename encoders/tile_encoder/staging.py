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
        self._copies = copies
        self._features: Tensor | None = None
        self._back: Any = None
        self._pixels, self._on_device = _buffers((batch_tiles, input_px, input_px, 3), device, copies is not None)
        self.pixels: NDArray[np.uint8] = self._pixels.numpy()
        if copies is not None:
            # The allocator may have given memory that work already queued still uses.
            copies.wait_stream(torch.cuda.current_stream(device))
            # Blocking: a thread that waits for the GPU leaves its core to those who decode slides.
            self._back = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def to_device(self) -> Tensor:
        """uint8 [B, I, I, 3] on the device, there before anything that is queued on the current stream from now on."""
        if self._copies is not None:
            with torch.cuda.stream(self._copies):
                self._on_device.copy_(self._pixels, non_blocking=True)
            torch.cuda.current_stream(self._on_device.device).wait_stream(self._copies)
        return self._on_device

    @torch.inference_mode()
    def bring_back(self, features: Tensor) -> None:
        """Takes float32 [B, D] on the device, computed on the current stream."""
        if self._back is None:
            self._features = features
            return
        if self._features is None:
            self._features = _host_buffer(features.shape, features.dtype, is_pinned=True)
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


@torch.inference_mode()
def _buffers(shape: tuple[int, ...], device: torch.device, is_copied: bool) -> tuple[Tensor, Tensor]:
    """Pixels here and on the device. In inference mode whoever asks, as everything that is computed from them: code
    that was compiled for tensors of the one kind is compiled again, for minutes, when it gets the other."""
    pixels = _host_buffer(shape, torch.uint8, is_pinned=is_copied)
    return pixels, torch.empty_like(pixels, device=device) if is_copied else pixels


def _host_buffer(shape: tuple[int, ...], dtype: torch.dtype, *, is_pinned: bool) -> Tensor:
    """Page-locked on CUDA: nothing else is copied while the host goes on."""
    return torch.zeros(shape, dtype=dtype, pin_memory=is_pinned)


def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """What all stagings of one encoder copy pixels on; None on the CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
