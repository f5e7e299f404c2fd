"""Memory to decode into, always at the same alignment: it decides how a decoder writes."""

import math

import numpy as np
from numpy.typing import NDArray

# Into memory aligned to 32 bytes libjpeg-turbo writes past the caches, which takes it 4 % longer, and whoever reads the
# pixels next another 10 %. malloc gives one or the other by chance.
_ALIGNMENT, _PAST_IT = 32, 16


def decode_buffer(*shape: int) -> NDArray[np.uint8]:
    """uint8 of this shape that a decoder leaves in the caches; C-contiguous, content undefined."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = (_PAST_IT - memory.ctypes.data) % _ALIGNMENT
    return memory[start : start + size].reshape(shape)
