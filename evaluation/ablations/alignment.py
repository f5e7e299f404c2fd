"""How far slides and their reports lie together, in any space that holds a vector of each.

Each side is centred first: all slides have something in common, and all reports, which makes every cosine high and says
nothing. What is left is read beside the same numbers of shuffled pairs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.ablations.table_file import AblationTable
from evaluation.metrics.retrieval import Retrieval, retrieve

CUTS: Final = (1, 5, 10)
NOTES: Final = (
    "Both sides are centred. Gap: mean cosine of a slide with its own report, less that with all others. R@k: its "
    "partner is among the k nearest; the right one comes last among equals. Shuffled: the same with reports of other "
    "slides, which is chance.",
)
HEAD: Final = (
    "space", "", "pairs", "cosine", "others", "gap", *(f"report→slide R@{cut}" for cut in CUTS), "MRR",
    *(f"slide→report R@{cut}" for cut in CUTS), "MRR ", "shuffled R@1 / R@10", "cosine of the two means",
)  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """`gap` is `cosine` less `cosine_of_others`; `cosine_of_means` is of the two sides before they are centred: far
    below 1 the sides lie in different places."""

    pairs: int
    cosine: float
    cosine_of_others: float
    cosine_of_means: float
    report_to_slide: dict[str, float]
    slide_to_report: dict[str, float]
    shuffled: dict[str, float]

    @property
    def gap(self) -> float:
        """What a slide has more in common with its own report than with others."""
        return self.cosine - self.cosine_of_others


def align(slides: NDArray[np.floating[Any]], reports: NDArray[np.floating[Any]]) -> Alignment:
    """Vectors [pairs, width] of slides and of their reports, row by row.

    Raises:
        ValueError: fewer than three pairs, or sides that do not belong together.
    """
    if slides.shape != reports.shape or slides.ndim != 2 or len(slides) < 3:
        raise ValueError("slides and reports are as many rows of one width, three at least")
    square = _directions(reports) @ _directions(slides).T
    back, forth = retrieve(square)
    own = np.diag(square)
    # Every report with the next but one slide: nobody's own.
    shuffled, _ = retrieve(np.roll(square, 2 if len(square) > 2 else 1, axis=0))
    return Alignment(
        pairs=len(own),
        cosine=float(own.mean()),
        cosine_of_others=float((square.sum() - own.sum()) / (square.size - len(own))),
        cosine_of_means=_cosine(slides.mean(axis=0, dtype=np.float64), reports.mean(axis=0, dtype=np.float64)),
        report_to_slide=_scores(back),
        slide_to_report=_scores(forth),
        shuffled=_scores(shuffled),
    )


def alignment_table(title: str, found: Sequence[tuple[str, Alignment]], notes: Sequence[str] = ()) -> AblationTable:
    """A row for each space."""
    numbers = {name: {**asdict(one), "gap": one.gap} for name, one in found}
    return AblationTable(title, [*NOTES, *notes], HEAD, [_row(name, one) for name, one in found], numbers)


def _row(name: str, one: Alignment) -> list[str]:
    def shares(scores: dict[str, float]) -> list[str]:
        return [f"{scores[f'R@{cut}']:.2f}" for cut in CUTS] + [f"{scores['MRR']:.2f}"]

    cosines = [f"{value:.3f}" for value in (one.cosine, one.cosine_of_others, one.gap)]
    chance = f"{one.shuffled['R@1']:.2f} / {one.shuffled['R@10']:.2f}"
    both = [*shares(one.report_to_slide), *shares(one.slide_to_report)]
    return [name, "", str(one.pairs), *cosines, *both, chance, f"{one.cosine_of_means:.3f}"]


def _directions(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(lengths > 0, lengths, 1.0), np.float64)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0


def _scores(found: Retrieval) -> dict[str, float]:
    ranks = np.array(found.ranks)
    return {**{f"R@{cut}": float((ranks <= cut).mean()) for cut in CUTS}, "MRR": float((1 / ranks).mean())}
