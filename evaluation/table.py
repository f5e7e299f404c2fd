"""The outcome of an examination as text for a terminal and as a document for scripts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from evaluation.criteria import Criterion
from evaluation.exam import (
    ANOTHER_SLIDE,
    AS_IS,
    BLIND,
    FINER,
    FOLLOW_UP,
    PLACE,
    RESTAINED,
    SHUFFLED,
    UNSEEN_WORDINGS,
)
from evaluation.judge import KINDS, Judgement, Kind
from evaluation.score import best_constant, chance_agreement, grouped, score
from synthetic.questions.topics import TOPICS

CONDITIONS: Final = (
    AS_IS,
    UNSEEN_WORDINGS,
    FOLLOW_UP,
    FINER,
    RESTAINED,
    ANOTHER_SLIDE,
    PLACE,
    SHUFFLED,
    BLIND,
)
_TITLES: Final[dict[Kind, str]] = {
    "closed": "Closed questions: a letter, Yes or No",
    "open": "Open questions: what the sentence says",
    "report": "Reports and descriptions: what they say of each attribute",
}
_TOPIC_ORDER: Final = (*(topic.name for topic in TOPICS), "necrosis", "never drawn")
LEGEND: Final = f"""\
Per cent right. ± is half of Wilson's 95 % interval, n what was asked. Beside every result:
best constant    the best constant answer to each topic and form of question, of what was asked {AS_IS}
{BLIND:<16} the same model and questions with a slide of blank features: only the text is left
{ANOTHER_SLIDE:<16} a slide's questions with another one's embedding: agreement with the first one's labels, and in
{"":<16} brackets how often the labels of the two agree
{PLACE:<16} more questions about where the necrosis is, of slides that have some: beside the next column
{SHUFFLED:<16} the same slides after their tiles changed places"""


def table_text(judgements: Sequence[Judgement], criteria: Iterable[Criterion]) -> str:
    """The tables by topic, what they mean, and the criteria."""
    sections = [_matrix(kind, [j for j in judgements if j.kind == kind]) for kind in KINDS]
    return "\n\n".join([*sections, LEGEND, _criteria_text(criteria)])


def table_document(judgements: Sequence[Judgement], criteria: Iterable[Criterion]) -> dict[str, Any]:
    """The same for scripts: one row for each condition, kind and topic, with its own baselines; shares are 0 … 1."""
    groups = grouped(judgements, lambda j: (j.asked.condition, j.kind, j.topic))
    return {
        "results": [_row(*key, groups[key]) for key in sorted(groups)],
        "criteria": [{"name": line.name, "measured": line.measured, "met": line.is_met} for line in criteria],
    }


def _row(condition: str, kind: str, topic: str, group: Sequence[Judgement]) -> dict[str, Any]:
    result = score(group)
    return {
        "condition": condition,
        "kind": kind,
        "topic": topic,
        "asked": result.asked,
        "right": result.right,
        "margin": round(result.margin, 4),
        "constant": round(best_constant(group).share, 4),
        "chance": round(chance_agreement(group), 4),
        "unreadable": sum(judgement.given is None for judgement in group),
    }


def _matrix(kind: Kind, judgements: Sequence[Judgement]) -> str:
    by_condition = grouped(judgements, lambda judgement: judgement.asked.condition)
    shown = [condition for condition in CONDITIONS if condition in by_condition]
    headers = [["", "", "best", *(name.partition(" ")[0] for name in shown)]]
    headers += [["", "n", "constant", *(name.partition(" ")[2] for name in shown)]]
    topics = [topic for topic in _TOPIC_ORDER if any(j.topic == topic for j in judgements)]
    rows = [[topic, *_cells(by_condition, shown, topic)] for topic in topics]
    constants = [_percent(best_constant(by_condition[condition]).share) for condition in shown]
    last = [["all", *_cells(by_condition, shown, None)], ["best constant", "", "", *constants]]
    return "\n".join([_TITLES[kind], *_aligned([*headers, *rows, *last])])


def _cells(by_condition: dict[str, list[Judgement]], shown: Sequence[str], topic: str | None) -> Iterator[str]:
    """n and constant of "as is", then a cell for each condition; `topic` None takes all of them together."""
    found = {name: [j for j in by_condition.get(name, []) if topic in (None, j.topic)] for name in (AS_IS, *shown)}
    yield str(len(found[AS_IS]))
    yield _percent(best_constant(found[AS_IS]).share) if found[AS_IS] else "–"
    yield from (_cell(name, found[name]) for name in shown)


def _cell(condition: str, judgements: Sequence[Judgement]) -> str:
    if not judgements:
        return "–"
    result = score(judgements)
    if condition == ANOTHER_SLIDE:
        return f"{_percent(result.share)} ({_percent(chance_agreement(judgements))})"
    return f"{_percent(result.share)} ±{result.margin * 100:.0f}"


def _criteria_text(criteria: Iterable[Criterion]) -> str:
    return "\n".join(f"{'✓' if line.is_met else '✗'} {line.name}: {line.measured}" for line in criteria)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _percent(share: float) -> str:
    return f"{share * 100:.0f}"
