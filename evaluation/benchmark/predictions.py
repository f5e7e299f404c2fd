"""A file of answers that somebody else made: {question_id, answer} a line, as JSONL or CSV.

The scripts of WSI-LLaVA call the answer `answer`, `Output` or `model_output`; all are taken. Nothing is left out
without a word: broken lines, ids that stand there twice and questions without an answer are counted and named.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluation.benchmark.tables import csv_rows
from evaluation.errors import UnreadableSet

_IDS: Final = ("question_id", "id", "key")
_ANSWERS: Final = ("answer", "Output", "model_output", "prediction")


@dataclass(frozen=True)
class Predictions:
    """`answers` by question id, None where the file names the question and has no answer; of several the last that says
    something. `duplicates` are ids that stand there more than once, `truths` the references where the file has them."""

    answers: dict[str, str | None]
    truths: dict[str, str]
    rows: int
    not_json: tuple[int, ...]
    duplicates: tuple[str, ...]

    @property
    def without_answer(self) -> list[str]:
        """Questions that the file names and does not answer."""
        return [key for key, answer in self.answers.items() if answer is None]


def read_predictions(path: Path) -> Predictions:
    """The file's answers.

    Raises:
        UnreadableSet: it is no text, or a row names no question.
    """
    answers: dict[str, str | None] = {}
    truths: dict[str, str] = {}
    broken: list[int] = []
    duplicates: dict[str, None] = {}
    rows = 0
    for number, row in _rows(path):
        rows += 1
        if row is None:
            broken.append(number)
            continue
        key = _first(row, _IDS)
        if key is None:
            raise UnreadableSet(f"{path.name}, line {number} names no question (`question_id`).")
        answer = _first(row, _ANSWERS)
        if key in answers:
            duplicates[key] = None
        answers[key] = answer if answer is not None else answers.get(key)
        if (truth := _first(row, ("T-answer",))) is not None:
            truths[key] = truth
    return Predictions(answers, truths, rows, tuple(broken), tuple(duplicates))


def _rows(path: Path) -> list[tuple[int, dict[str, Any] | None]]:
    if path.suffix == ".csv":
        return list(enumerate(csv_rows(path), start=2))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSet(f"{path.name} cannot be read as UTF-8 text.") from error
    return [(number, _object(line)) for number, line in enumerate(lines, start=1) if line.strip()]


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these fields that says something."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None
