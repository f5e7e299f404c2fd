"""What can be had without any model: the best constant answer, the longest option, another slide's reference.

The last is the line that text metrics have to be read beside: a report of another patient with the same cancer gets
more BLEU-1 from WSI-Bench than the best published system does.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from evaluation.asking.conditions import AS_IS, WRONG, WRONG_SAME, Ask, Shown, wrong_slides
from evaluation.benchmark.items import Item, QuestionSet
from evaluation.metrics.closed import LETTERS
from evaluation.scoring.rows import Measures, Row, row_of

Baseline = Literal["best constant", "longest option", "another slide's reference", "same project's reference"]
CONSTANT: Final[Baseline] = "best constant"
LONGEST: Final[Baseline] = "longest option"
ANOTHER: Final[Baseline] = "another slide's reference"
SAME_PROJECT: Final[Baseline] = "same project's reference"
BASELINES: Final[tuple[Baseline, ...]] = (CONSTANT, LONGEST, ANOTHER, SAME_PROJECT)
# References that are tried as a constant answer to a task; all of them would be its rows squared.
TRIED: Final = 12
_BY: Final = "BLEU-1"


def baseline_rows(questions: QuestionSet, measures: Measures, seed: int) -> dict[Baseline, list[Row]]:
    """Rows of each baseline, as if somebody had answered so. No judge is asked about them."""
    unjudged = replace(measures, judge=None)
    return {
        CONSTANT: list(_constants(questions, unjudged)),
        LONGEST: [_row(item, _longest(item), unjudged) for item in questions.items if item.form == "letter"],
        ANOTHER: list(_references(questions, unjudged, seed, same_project=False)),
        SAME_PROJECT: list(_references(questions, unjudged, seed, same_project=True)),
    }


def _row(item: Item, answer: str | None, measures: Measures) -> Row:
    ask = Ask(AS_IS, item, Shown("none"), item.question, item.truth, item.options)
    return row_of(ask, {"text": answer, "reason": "no_other_patient"}, measures)


def _constants(questions: QuestionSet, measures: Measures) -> Iterator[Row]:
    """To closed questions of a file the most frequent letter or word; to open ones of a task the best of some
    references, by BLEU-1. It is chosen by looking at the truths, so it is an upper bound of what a constant gets."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in questions.items:
        groups.setdefault((item.task, item.label if item.is_closed else ""), []).append(item)
    for items in groups.values():
        if items[0].is_closed:
            answer = Counter(item.truth for item in items).most_common(1)[0][0]
        else:
            answer = _best_reference(items, measures)
        yield from (_row(item, answer, measures) for item in items)


def _best_reference(items: Sequence[Item], measures: Measures) -> str:
    texts = sorted({item.truth for item in items}, key=lambda text: hashlib.sha256(text.encode()).digest())[:TRIED]
    if len(texts) == 1 or not measures.papers:
        return Counter(item.truth for item in items).most_common(1)[0][0]
    name = f"{_BY} ({measures.papers[0]})"

    def mean(text: str) -> float:
        return sum(_row(item, text, measures).values[name].value or 0.0 for item in items[:50])

    return max(texts, key=mean)


def _longest(item: Item) -> str:
    return LETTERS[max(range(len(item.options)), key=lambda index: len(item.options[index]))] if item.options else ""


def _references(questions: QuestionSet, measures: Measures, seed: int, *, same_project: bool) -> Iterator[Row]:
    """The truth of the same open question about another patient's slide. Closed questions are about their own slide:
    the letter of another question says nothing."""
    by_task: dict[str, list[Item]] = {}
    for item in questions.items:
        if not item.is_closed:
            by_task.setdefault(item.task, []).append(item)
    condition = WRONG_SAME if same_project else WRONG
    for items in by_task.values():
        partners = wrong_slides(items, seed, same_project=same_project)
        truths = {item.slide: item.truth for item in items}
        for item in items:
            partner = partners.get(item.slide)
            row = _row(item, truths[partner] if partner else None, measures)
            yield replace(row, condition=condition, shown=partner or "")
