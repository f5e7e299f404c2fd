"""Memory to decode into, always at the same alignment: it decides how a decoder writes."""

import math
from threading import local

import numpy as np
from numpy.typing import NDArray

# Into memory aligned to 32 bytes libjpeg-turbo writes past the caches, which takes it 4 % longer, and whoever reads the
# pixels next another 10 %. malloc gives one or the other by chance.
_ALIGNMENT, PAST_ALIGNMENT = 32, 16


def decode_buffer(*shape: int) -> NDArray[np.uint8]:
    """uint8 of this shape that a decoder leaves in the caches; C-contiguous, content undefined."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = (PAST_ALIGNMENT - memory.ctypes.data) % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


class Scratch(local):
    """Each thread's own decode buffer, used again and again: it stays in the thread's cache."""

    def __init__(self) -> None:
        self._pixels = decode_buffer(0)

    def pixels(self, *shape: int) -> NDArray[np.uint8]:
        """uint8 of this shape, content undefined; the thread's next call may give the same memory."""
        if self._pixels.shape != shape:
            self._pixels = decode_buffer(*shape)
        return self._pixels
