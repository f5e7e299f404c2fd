"""Pairs from the server's feedback export (`eyepiece feedback export`, a JSON object a line).

What is used, and why nothing else is: two answers to the same question about the same slide or region, of which people
agreed with one and disagreed with the other, are a pair as they stand. A disagreement whose words are the right answer
is one too, but words can be anything ("no", "see block 3"), so they are taken for answers only where whoever made the
export says that they are. An answer that was only agreed with says nothing of a worse one.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import TrainingError
from training.preference.pairs import PairCounts, PreferencePair, user

ORIGIN: Final = "feedback"
_DAMAGED: Final = "feedback.damaged"


class ExportedFeedback(BaseModel):
    """What of a line of the export is looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slide_id: str
    conversation_id: str
    turn: int
    question: str
    answer: str
    model: str | None = None
    region_id: str | None = None
    verdict: Literal["agree", "disagree", "unsure"]
    words: str | None = None


@dataclass(frozen=True)
class FeedbackPairs:
    """The pairs, and what of the export is not in them."""

    pairs: list[PreferencePair]
    counts: PairCounts


def pairs_from_feedback(export: Path, model: str, *, words_are_answers: bool) -> FeedbackPairs:
    """Pairs of what `model` answered in first turns; of a turn that was judged twice in the export, the later line.

    A later turn depends on turns that the export does not hold, so it is left out.

    Raises:
        TrainingError: there is no such file, or a line is no feedback; it names the line.
    """
    left_out: Counter[str] = Counter()
    by_question: dict[tuple[str, str | None, str], list[ExportedFeedback]] = defaultdict(list)
    for record in _latest(export, left_out):
        if record.model != model:
            left_out["are of another model"] += 1
        elif record.turn != 1:
            left_out["are later turns, and the earlier ones are not in the export"] += 1
        elif record.verdict == "unsure":
            left_out["are unsure"] += 1
        else:
            by_question[record.slide_id, record.region_id, record.question].append(record)
    pairs = [pair for group in by_question.values() for pair in _paired(group, words_are_answers, left_out)]
    return FeedbackPairs(pairs, PairCounts(len(pairs), dict(left_out)))


def _latest(export: Path, left_out: Counter[str]) -> Iterator[ExportedFeedback]:
    if not export.is_file():
        raise TrainingError(f"There is no file {export}; `eyepiece feedback export` prints one.")
    latest: dict[tuple[str, int], ExportedFeedback] = {}
    for number, line in enumerate(export.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        found = _parsed(line, export, number)
        if found is None:
            left_out["could not be read by the server"] += 1
            continue
        # Taken out first, so that the later judgement also takes the later place.
        latest.pop((found.conversation_id, found.turn), None)
        latest[found.conversation_id, found.turn] = found
    yield from latest.values()


def _parsed(line: str, export: Path, number: int) -> ExportedFeedback | None:
    try:
        data: Mapping[str, Any] = json.loads(line)
        return None if data.get("object") == _DAMAGED else ExportedFeedback.model_validate(data)
    except (ValidationError, ValueError, AttributeError):
        raise TrainingError(f"{export.name}, line {number}: this is no line of a feedback export.") from None


def _paired(group: list[ExportedFeedback], words_are_answers: bool, left_out: Counter[str]) -> Iterator[PreferencePair]:
    agreed = list(dict.fromkeys(record.answer for record in group if record.verdict == "agree"))
    contested = {record.answer for record in group if record.verdict == "disagree"} & set(agreed)
    good = [answer for answer in agreed if answer not in contested]
    used = False
    for record in group:
        if record.verdict != "disagree":
            continue
        words = (record.words or "").strip()
        if record.answer in contested:
            left_out["are answers that others agreed with"] += 1
        elif words_are_answers and words and words != record.answer:
            used = True
            yield _pair(record, words, "correction")
        elif good:
            used = True
            yield from (_pair(record, answer, "verdicts") for answer in good)
        else:
            left_out["were disagreed with, and there is no better answer to the same question"] += 1
    if not used:
        left_out["were agreed with, and there is no worse answer to the same question"] += sum(
            record.verdict == "agree" and record.answer not in contested for record in group
        )


def _pair(record: ExportedFeedback, chosen: str, how: str) -> PreferencePair:
    return PreferencePair(
        messages=(user(record.question),),
        slide=record.slide_id,
        region=record.region_id,
        chosen=chosen,
        rejected=record.answer,
        origin=f"{ORIGIN}: {how}",
    )
