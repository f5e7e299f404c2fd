"""Metrics held against each other: which of them tells a right answer from one about another slide.

On answers   how often the model's answer about the slide gets more than its answer about another patient's of the same
             project, to the same question and reference
On reports   how a metric's order of reports follows the exact share of what they say right, on reports made of drawn
             slides' truths; no model is in it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.asking.conditions import AS_IS, WRONG_SAME
from evaluation.metrics.nlu import NLU
from evaluation.scoring.rows import Row
from evaluation.scoring.statistics import Interval, bootstrap_by_patient
from synthetic.questions.question import report
from synthetic.questions.topics import ATTRIBUTES, Topic
from synthetic.slide_truth import SlideTruth, slide_truth

_FIRST_SEED: Final = 2_000_400_000
_DRAWS: Final = 300
# True of every slide and in no reference: metrics differ in what they make of it.
_BESIDE: Final = "The section is stained with haematoxylin and eosin."


def compare_metrics(rows: Mapping[tuple[str, str], Sequence[Row]]) -> list[dict[str, Any]]:
    """A line for each model that was asked about other slides of the same project, and each metric: `auc` of all right
    against all wrong-slide answers, and `wins`, the share of questions where the right slide's answer gets more (half
    for as much), with its bootstrap by patient. Failures count as 0."""
    lines = []
    for target in dict.fromkeys(name for name, condition in rows if condition == WRONG_SAME):
        right = {row.item.key: row for row in rows.get((target, AS_IS), ())}
        pairs = [
            (right[row.item.key], row)
            for row in rows[target, WRONG_SAME]
            if row.reason != "no_other_patient" and row.item.key in right
        ]
        for metric in dict.fromkeys(name for _, wrong in pairs for name in wrong.values):
            both = [pair for pair in pairs if all(metric in row.values for row in pair)]
            lines.append({"target": target, "metric": metric, **_told_apart(both, metric)})
    return lines


def _told_apart(pairs: Sequence[tuple[Row, Row]], metric: str) -> dict[str, Any]:
    values = np.array([[row.values[metric].value or 0.0 for row in pair] for pair in pairs])
    wins = (values[:, 0] > values[:, 1]) + (values[:, 0] == values[:, 1]) / 2
    interval = bootstrap_by_patient(wins.tolist(), [row.item.patient for row, _ in pairs])
    return {
        "rows": len(pairs),
        "auc": round(area_under_curve(values[:, 0], values[:, 1]), 6),
        "wins": round(float(wins.mean()), 6),
        "wins_low": round(interval.low, 6) if interval else None,
        "wins_high": round(interval.high, 6) if interval else None,
    }


def area_under_curve(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """The chance that one of `right` is above one of `wrong`, half where they are equal."""
    ranks = _ranks(np.concatenate([right, wrong]))
    return float((ranks[: len(right)].sum() - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong)))


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, equal values with their mean rank; 0 where one side is all alike."""
    first, second = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / scale) if scale else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


@dataclass(frozen=True)
class DrawnReport:
    """A reference, a report that differs from it, and the exact share of attributes that it says right."""

    reference: str
    answer: str
    right: float


def drawn_reports(count: int) -> list[DrawnReport]:
    """Reports with none to all attributes wrong, their sentences in another order, every third with one beside the
    matter. The same every time."""
    return [_drawn_report(seed) for seed in range(_FIRST_SEED, _FIRST_SEED + count)]


def _drawn_report(seed: int) -> DrawnReport:
    truth, rng = slide_truth(seed), np.random.default_rng([seed, 7])
    wrong = rng.choice(len(ATTRIBUTES), rng.integers(len(ATTRIBUTES) + 1), replace=False)
    said = [
        _another_value(topic, truth, rng) if place in wrong else topic.answer(truth)
        for place, topic in enumerate(ATTRIBUTES)
    ]
    texts = [said[place] for place in rng.permutation(len(said))]
    if seed % 3 == 0:
        texts.insert(0, _BESIDE)
    return DrawnReport(report(truth), " ".join(texts), 1 - len(wrong) / len(ATTRIBUTES))


def _another_value(topic: Topic, truth: SlideTruth, rng: np.random.Generator) -> str:
    others = [value for value in topic.phrases if value != topic.value(truth)]
    value = str(rng.choice(others))
    return topic.answers.get(value, topic.sentence.format(topic.phrases[value]))


@dataclass(frozen=True)
class Followed:
    """How a metric follows the exact share: Spearman's correlation with a bootstrap over reports, and its mean where
    everything, and where nothing, is right."""

    metric: str
    correlation: float
    interval: Interval
    all_right: float
    none_right: float


def follow_truth(papers: Sequence[str], count: int = 160) -> list[Followed]:
    """Every text metric of these papers on drawn reports.

    Raises:
        MissingLanguageData: data of a metric is not installed.
    """
    reports = drawn_reports(count)
    exact = np.array([one.right for one in reports])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, count, (_DRAWS, count))
    found = []
    for paper in papers:
        scored = [NLU[paper](one.reference, one.answer) for one in reports]
        for metric in scored[0]:
            values = np.array([scores[metric] for scores in scored])
            low, high = np.percentile([rank_correlation(values[rows], exact[rows]) for rows in drawn], (2.5, 97.5))
            found.append(
                Followed(
                    f"{metric} ({paper})",
                    rank_correlation(values, exact),
                    Interval(float(low), float(high)),
                    float(values[exact == 1].mean()),
                    float(values[exact == 0].mean()),
                )
            )
    return found
