"""Shares of right answers with their uncertainty, and what can be had without looking."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

from evaluation.judge import Judgement

_Z_95 = 1.96
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Score:
    """`right` of `asked`."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """0 … 1; NaN when nothing was asked."""
        return self.right / self.asked if self.asked else float("nan")

    @property
    def margin(self) -> float:
        """Half the width of Wilson's 95 % interval."""
        n, z2 = self.asked, _Z_95**2
        if not n:
            return float("nan")
        return _Z_95 * sqrt(self.share * (1 - self.share) / n + z2 / (4 * n * n)) / (1 + z2 / n)


def score(judgements: Iterable[Judgement]) -> Score:
    """How many were right."""
    right = [judgement.is_right for judgement in judgements]
    return Score(sum(right), len(right))


def best_constant(judgements: Iterable[Judgement]) -> Score:
    """What the best constant answer to each topic and form of question gets: no look at the slide, none at the text.

    To options it is always the same letter or always the same words, whichever is right more often.
    """
    groups = grouped(judgements, lambda judgement: (judgement.topic, judgement.form)).values()
    return Score(sum(_most_frequent(group) for group in groups), sum(len(group) for group in groups))


def chance_agreement(judgements: Sequence[Judgement]) -> float:
    """The share that answers get which are right for the slide that was shown; NaN of nothing."""
    return sum(judgement.chance for judgement in judgements) / len(judgements) if judgements else float("nan")


def grouped(judgements: Iterable[Judgement], key: Callable[[Judgement], _Key]) -> dict[_Key, list[Judgement]]:
    """The judgements by key, in order of first appearance."""
    groups: dict[_Key, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(key(judgement), []).append(judgement)
    return groups


def same_questions(judgements: Iterable[Judgement], reference: Iterable[Judgement]) -> list[Judgement]:
    """Of `judgements`, what was also asked in `reference`, of the same slide in the same words."""
    asked = {_identity(judgement) for judgement in reference}
    return [judgement for judgement in judgements if _identity(judgement) in asked]


def _identity(judgement: Judgement) -> tuple[int, str, str]:
    return (judgement.asked.truth.seed, judgement.asked.question.text, judgement.topic)


def _most_frequent(group: Sequence[Judgement]) -> int:
    counts = (Counter(j.wanted for j in group), Counter(j.phrase for j in group))
    return max(count.most_common(1)[0][1] for count in counts)
