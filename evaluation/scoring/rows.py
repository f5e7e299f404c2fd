"""One row for every question of every condition, whatever became of it: its values by metric, or why there are none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from evaluation.asking.conditions import Ask, Condition
from evaluation.benchmark.items import Item
from evaluation.judging.judge import Answered, Judge, ToJudge
from evaluation.metrics.closed import read_closed
from evaluation.metrics.label_match import match_label
from evaluation.metrics.nlu import METRICS, NLU
from evaluation.metrics.number import read_number

# A name of a metric is the paper's name and the metric's: numbers of two papers are two columns.
EXACT: Final = "exact"
READ: Final = "read"
LABEL_MATCH: Final = "label match (MLLM-HWSI)"
_LABEL_TASKS: Final = frozenset({"Histological_Typing"})


@dataclass(frozen=True)
class Value:
    """A metric's value; None with the reason why there is none. Such a row counts as 0 in one mean and is left out of
    the other, and is counted in both."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Row:
    """A question under a condition. `answer` None with the `reason`: why nobody answered."""

    condition: Condition
    item: Item
    shown: str
    question: str
    wanted: str
    answer: str | None
    reason: str | None
    values: Mapping[str, Value] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    repeats: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measures:
    """What is measured: the papers whose text metrics are computed, and the judge with its log, if there is one."""

    papers: tuple[str, ...] = tuple(NLU)
    judge: Judge | None = None
    judge_log: Mapping[str, Any] = field(default_factory=dict)
    judged_conditions: tuple[Condition, ...] = ()
    extras: tuple["Extra", ...] = ()

    def metrics_of(self, item: Item, condition: Condition) -> list[str]:
        """The names of all metrics of such a question."""
        if item.is_closed:
            return [EXACT, READ]
        names = [f"{metric} ({paper})" for paper in self.papers for metric in METRICS[paper]]
        if item.task in _LABEL_TASKS:
            names.append(LABEL_MATCH)
        names += [extra.name for extra in self.extras]
        if self.judge is not None and condition in self.judged_conditions:
            names += self.judge.metrics
        return names


@dataclass(frozen=True)
class Extra:
    """A metric that needs more than this package, such as BERTScore: a share of truth and answer."""

    name: str
    score: Callable[[str, str], float]


def row_of(ask: Ask, reply: Mapping[str, Any] | None, measures: Measures) -> Row:
    """The row of a question; `reply` is its line of the log, None where it was not asked."""
    text = None if reply is None else reply["text"]
    reason = None if text is not None else "not_asked" if reply is None else reply["reason"]
    metrics = measures.metrics_of(ask.item, ask.condition)
    shown = ask.shown.slide if ask.shown.kind == "slide" else ask.shown.kind
    values: dict[str, Value] = {}
    claims: dict[str, float] = {}
    repeats: dict[str, tuple[float | None, ...]] = {}
    if text is None:
        values = dict.fromkeys(metrics, Value(None, reason))
    elif ask.item.is_closed:
        values = closed_values(ask.item, ask.wanted, ask.options, text)
    elif not text.strip():
        values = dict.fromkeys(metrics, Value(None, "empty_answer"))
    else:
        values = {name: Value(score) for name, score in open_scores(ask.item, ask.wanted, text, measures).items()}
        if measures.judge is not None and ask.condition in measures.judged_conditions:
            for metric in measures.judge.metrics:
                answered = Answered(ask.item.question, ask.wanted, text)
                values[metric], claims[metric], repeats[metric] = _judged(answered, metric, measures)
    return Row(ask.condition, ask.item, shown, ask.question, ask.wanted, text, reason, values, claims, repeats)


def without_partner(condition: Condition, item: Item, measures: Measures) -> Row:
    """The row of a question that this condition has no other patient's slide for."""
    values = dict.fromkeys(measures.metrics_of(item, condition), Value(None, "no_other_patient"))
    return Row(condition, item, "", item.question, item.truth, None, "no_other_patient", values)


def closed_values(item: Item, wanted: str, options: Sequence[str], text: str) -> dict[str, Value]:
    """Both readings of a closed answer: 1 right, 0 wrong, None unreadable. Not exact is wrong, not unreadable."""
    if item.form == "number":
        exact, read = read_number(text)
    else:
        reading = read_closed("letter" if item.form == "letter" else "yes_no", text, options)
        exact, read = reading.exact, reading.read
    unreadable = "empty_answer" if not text.strip() else "unreadable"
    return {
        EXACT: Value(float(exact == wanted)),
        READ: Value(None, unreadable) if read is None else Value(float(read == wanted)),
    }


def open_scores(item: Item, truth: str, text: str, measures: Measures) -> dict[str, float]:
    """All metrics of a free answer that need no judge."""
    scores = {
        f"{metric} ({paper})": score for paper in measures.papers for metric, score in _nlu(paper, truth, text).items()
    }
    if item.task in _LABEL_TASKS:
        scores[LABEL_MATCH] = float(match_label(text, truth).is_match)
    return scores | {extra.name: extra.score(truth, text) for extra in measures.extras}


def _judged(answered: Answered, metric: Any, measures: Measures) -> tuple[Value, float, tuple[float | None, ...]]:
    """The mean over the repeats that could be read; without any the last one's reason."""
    assert measures.judge is not None
    found = [
        measures.judge.judgement(measures.judge_log, ToJudge(answered, metric, repeat))
        for repeat in range(measures.judge.repeats)
    ]
    scores = [judgement.score for judgement in found if judgement.score is not None]
    claims = [judgement.claims for judgement in found if judgement.claims]
    value = Value(sum(scores) / len(scores)) if scores else Value(None, f"judge: {found[-1].reason}")
    mean_claims = sum(claims) / len(claims) if claims else 0.0
    return value, mean_claims, tuple(judgement.score for judgement in found)


# Another slide's answer is often the same words, and pairs of a baseline repeat those of a condition.
@cache
def _nlu(paper: str, truth: str, answer: str) -> dict[str, float]:
    return NLU[paper](truth, answer)
