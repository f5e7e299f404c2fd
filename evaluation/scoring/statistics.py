"""Uncertainty: Wilson's interval of a share, and the bootstrap by patient of a mean or of a paired difference.

Questions about one patient are answered right or wrong together, so patients are drawn, not rows; and two conditions
are compared on the same rows. Draws are seeded by the patients: the same results give the same bytes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 2_000
_Z_95: Final = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """95 %, lower and upper end."""

    low: float
    high: float


def wilson(right: int, asked: int) -> Interval | None:
    """Wilson's interval of a share; None of nothing."""
    if not asked:
        return None
    share, z2 = right / asked, _Z_95**2
    center = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z_95 * sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked)) / (1 + z2 / asked)
    return Interval(max(0.0, center - half), min(1.0, center + half))


def bootstrap_by_patient(values: Sequence[float], patients: Sequence[str]) -> Interval | None:
    """The percentile interval of the mean of `values` when patients are drawn with replacement; None below two
    patients.

    The same patients are drawn alike for every metric and condition, so intervals side by side are of the same draws.
    """
    names = tuple(sorted(set(patients)))
    if len(names) < 2:
        return None
    index = {patient: number for number, patient in enumerate(names)}
    rows = np.array([index[patient] for patient in patients])
    sums = np.bincount(rows, weights=np.asarray(values, dtype=np.float64), minlength=len(index))
    counts = np.bincount(rows, minlength=len(index)).astype(np.float64)
    drawn = _drawn(names)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), (2.5, 97.5))
    return Interval(float(low), float(high))


@lru_cache(32)
def _drawn(names: tuple[str, ...]) -> NDArray[np.float64]:
    """How often each patient is drawn [DRAWS, patients]."""
    seed = int.from_bytes(hashlib.sha256("\x1f".join(names).encode()).digest()[:8])
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    return drawn.astype(np.float64)
