"""The table of a cohort: a row for each slide and question, whether or not there is an answer."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluation.cohort.ask_cohort import CohortAsk, EncodedSlide
from evaluation.cohort.read_tables import ANSWER_COLUMNS, CohortQuestion, CohortSlide

# What a spreadsheet would take for a formula, and run.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Cohort:
    """Who was asked what. `encoded` has the slides that are ready, by name; `failed` says why one is not."""

    slides: Sequence[CohortSlide]
    questions: Sequence[CohortQuestion]
    model: str
    base_url: str
    encoded: Mapping[str, EncodedSlide]
    failed: Mapping[str, str]

    def asks(self) -> list[CohortAsk]:
        """Every question about every slide that is ready, slide by slide."""
        ready = [self.encoded[slide.name] for slide in self.slides if slide.name in self.encoded]
        return [CohortAsk(slide, question, self.model) for slide in ready for question in self.questions]


def write_answers(path: Path, cohort: Cohort, log: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the CSV anew: the study's columns, then those of `ANSWER_COLUMNS`.

    `reason` says why there is no answer, `warnings` what the server doubts; of a question with choices `probability` is
    the answer's share, and `probabilities` are those of all. A text that a spreadsheet would take for a
    formula has an apostrophe before it; the log has it as it is.
    """
    names = list(dict.fromkeys(name for slide in cohort.slides for name in slide.more))
    beside = path.with_suffix(".part")
    with beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["slide", *names, *ANSWER_COLUMNS])
        table.writeheader()
        for row in _rows(cohort, log):
            table.writerow({name: _harmless(value) for name, value in row.items()})
    beside.replace(path)


def _rows(cohort: Cohort, log: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for slide in cohort.slides:
        encoded = cohort.encoded.get(slide.name)
        for question in cohort.questions:
            row = {"slide": slide.name, **slide.more, "question_key": question.key, "question": question.text}
            if encoded is None:
                yield row | {"reason": cohort.failed.get(slide.name, "not_encoded"), "model": cohort.model}
                continue
            line = log.get(CohortAsk(encoded, question, cohort.model).key) or {"reason": "not_asked"}
            yield row | {
                "slide_id": encoded.slide_id,
                "answer": line.get("text"),
                **_shares(line),
                "reason": line.get("reason"),
                "warnings": " ".join(line.get("warnings") or ()),
                "model": cohort.model,
                "encoder_id": encoded.encoder_id,
                "conversation_id": line.get("conversation_id"),
                "turn": line.get("turn"),
                "page": f"{cohort.base_url}/#{encoded.slide_id}",
            }


def _shares(line: Mapping[str, Any]) -> dict[str, str]:
    choices = line.get("choices") or ()
    of_answer = next((it["probability"] for it in choices if it["text"] == line.get("text")), None)
    if of_answer is None:
        return {}
    return {
        "probability": f"{of_answer:.4f}",
        "probabilities": " | ".join(f"{it['text']}: {it['probability']:.4f}" for it in choices),
    }


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
