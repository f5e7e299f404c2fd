"""Random weights drawn by numpy from shapes alone: the same on every machine and with every torch."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[int, ...]]


def seeded_weights(shapes: Shapes, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """One float32 array per name, drawn in the order given.

    Matrices keep the variance of their input; vectors lie near 1 (norm weights, variances) or 0 (biases), but not on
    them, so that a vector loaded under a wrong name changes the output.
    """
    return {name: _drawn(name, shape, rng) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        centre = 1.0 if name.endswith(("weight", "running_var")) else 0.0
        return np.asarray(centre + 0.1 * noise, dtype=np.float32)
    fan_in = int(np.prod(shape[1:]))
    return np.asarray(noise / np.sqrt(fan_in), dtype=np.float32)
