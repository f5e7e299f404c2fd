"""The two tables of a cohort: which slides, and what is asked about each of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evaluation.benchmark.read_json import text_of
from evaluation.benchmark.tables import csv_rows
from evaluation.errors import UnreadableSet

# Columns of the table of answers, which columns of the user's own may not be named like.
ANSWER_COLUMNS: Final = (
    "slide_id", "question_key", "question", "answer", "probability", "probabilities", "reason", "warnings", "model",
    "encoder_id", "conversation_id", "turn", "page",
)  # fmt: skip
_SLIDE_COLUMNS: Final = ("slide", "path", "id")


@dataclass(frozen=True)
class CohortSlide:
    """A slide by the study's own `name`: a file to upload, or one that the server has, by `known_as` (an id, its
    beginning, or a file name). `more` are the study's other columns."""

    name: str
    path: Path | None
    known_as: str | None
    more: Mapping[str, str]


@dataclass(frozen=True)
class CohortQuestion:
    """What is asked about every slide; `key` names it in the table. With `choices` the answer is one of them."""

    key: str
    text: str
    choices: tuple[str, ...] = ()


def read_slides(table: Path) -> tuple[CohortSlide, ...]:
    """The CSV of `slide` and either `path`, beside the table or absolute, or `id`; other columns are kept.

    Raises:
        UnreadableSet: a row says neither or both, a name repeats, a file is missing, a column has a name of ours.
    """
    slides = tuple(_slides(table))
    if not slides:
        raise UnreadableSet(f"{table.name} names no slide.")
    _refuse_repeats(table, "slide", [slide.name for slide in slides])
    if taken := set(slides[0].more) & set(ANSWER_COLUMNS):
        raise UnreadableSet(f"{table.name}: the table of answers has its own column {sorted(taken)[0]}; rename yours.")
    return slides


def _slides(table: Path) -> Iterator[CohortSlide]:
    for number, row in enumerate(csv_rows(table), start=2):
        where = f"{table.name}, row {number}"
        name = text_of(row, "slide", where).strip()
        path, known_as = ((row.get(column) or "").strip() for column in ("path", "id"))
        if bool(path) == bool(known_as):
            raise UnreadableSet(f"{where}: give either `path`, a file to upload, or `id`, a slide of the server.")
        if None in row:
            raise UnreadableSet(f"{where} has more fields than the head.")
        file = table.parent / path if path else None
        if file is not None and not file.exists():
            raise UnreadableSet(f"{where}: there is no file {path}.")
        more = {column: text or "" for column, text in row.items() if column not in _SLIDE_COLUMNS}
        yield CohortSlide(name, file, known_as or None, more)


def read_questions(table: Path) -> tuple[CohortQuestion, ...]:
    """The CSV of `key` and `question`, and where an answer is to be one of several, `choices` with `|` between them.

    Raises:
        UnreadableSet: a row is not whole, or a key repeats.
    """
    rows = enumerate(csv_rows(table), start=2)
    questions = tuple(_question(row, f"{table.name}, row {number}") for number, row in rows)
    if not questions:
        raise UnreadableSet(f"{table.name} asks nothing.")
    _refuse_repeats(table, "key", [question.key for question in questions])
    return questions


def _question(row: Mapping[str, str], where: str) -> CohortQuestion:
    choices = tuple(choice.strip() for choice in (row.get("choices") or "").split("|") if choice.strip())
    if len(choices) == 1:
        raise UnreadableSet(f"{where}: one choice is none; put `|` between several.")
    return CohortQuestion(text_of(row, "key", where).strip(), text_of(row, "question", where).strip(), choices)


def _refuse_repeats(table: Path, column: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise UnreadableSet(f"{table.name}: `{column}` {value} stands there more than once.")
        seen.add(value)
