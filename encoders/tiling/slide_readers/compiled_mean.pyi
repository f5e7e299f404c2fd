"""See compiled_mean.c; compiled where there is a compiler for it (deploy/compile_mean.py)."""

import numpy as np
from numpy.typing import NDArray

def mean_2x2(rgba: NDArray[np.uint8], out: NDArray[np.uint8], /) -> None: ...
