"""Retrieval of slides by reports and of reports by slides, from a square of similarities."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CUTS: Final = (1, 3, 5, 10)


@dataclass(frozen=True)
class Retrieval:
    """`ranks` count from 1, a query each."""

    ranks: tuple[int, ...]

    def scores(self) -> dict[str, float]:
        """Recall@1/3/5/10, their mean, and the mean reciprocal rank; shares 0 … 1."""
        recalls = {f"Recall@{cut}": sum(rank <= cut for rank in self.ranks) / len(self.ranks) for cut in CUTS}
        mean = sum(recalls.values()) / len(recalls)
        reciprocal = sum(1.0 / rank for rank in self.ranks) / len(self.ranks)
        return {**recalls, "Recall@avg": mean, "MRR": reciprocal}


def retrieve(similarity: NDArray[np.float64]) -> tuple[Retrieval, Retrieval]:
    """Report to slide, slide to report. `similarity[i, j]` is of report i with slide j; the right one of row i is i.

    Among equals the right one comes last, so that a model that finds everything alike gets nothing for it.

    Raises:
        ValueError: not a square of numbers.
    """
    square = np.asarray(similarity, dtype=np.float64)
    if square.ndim != 2 or square.shape[0] != square.shape[1] or not square.size:
        raise ValueError("similarities are a square, a row a report and a column a slide")
    if np.isnan(square).any():
        raise ValueError("a similarity is no number")
    return _ranked(square), _ranked(square.T)


def _ranked(square: NDArray[np.float64]) -> Retrieval:
    ranks = (square >= np.diag(square)[:, None]).sum(axis=1)
    return Retrieval(tuple(int(rank) for rank in ranks))
