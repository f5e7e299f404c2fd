"""Writes questions about drawn slides as WSI-Bench has them, in both of its layouts, with truths that are exact.

    dataset/<task>_test.json      layout A: open and closed
    WSI-Bench-test.jsonl          layout B: open alone
    slides.csv                    slide, project, seed: which slide to draw
    paraphrases.jsonl             {key, question}: wordings that training never saw, by key of layout A

A slide's growth pattern is its project, as a kind of cancer is TCGA's. Every third patient of a project has two slides.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from synthetic.questions.question import (
    Question,
    letter_question,
    open_question,
    report_question,
    summary_question,
    yes_no_question,
)
from synthetic.questions.topics import GRADE, NECROSIS, PROGNOSIS, STAGE, STROMA, SUBTYPE, TOPICS, TYPING, Topic
from synthetic.questions.wordings import SEEN, UNSEEN, Wordings
from synthetic.slide_truth import SlideTruth, slide_truth

_CHOICE_FILES: Final = {
    TYPING.name: "Diagnosis_choice",
    GRADE.name: "Diagnosis_choice",
    SUBTYPE.name: "Molecular_Subtyping_choice",
    STAGE.name: "Staging_choice",
}
_LABELS: Final = {
    "Global_Morphology_Description": "Caption",
    "Key_Diagnostic_Description": "Feature",
    "Regional_Structure_Description": "tissue",
    "Specific_Feature_Description": "Morphology",
    "Histological_Typing": "Classification",
    "Grading": "Grade",
    "Molecular_Subtyping": "Subtype",
    "Staging": "Stage",
    "Treatment_Planing": "Treatment",
    "Prognosis": "Prognosis",
    "Report": "Report",
}
_OPTIONS: Final = re.compile(r"\s*\(?A[).] .*", re.DOTALL)


@dataclass(frozen=True)
class NamedSlide:
    """A slide to draw, and what the set calls it."""

    name: str
    project: str
    seed: int

    @property
    def image(self) -> str:
        """As rows of the set name it."""
        return f"{self.project}/{self.name}.pt"


def write_wsi_bench(folder: Path, seeds: Iterable[int]) -> list[NamedSlide]:
    """Writes the set about the slides of these seeds; the same seeds give the same files."""
    slides = name_slides(seeds)
    by_file: dict[str, list[dict[str, Any]]] = {}
    lines: list[dict[str, str]] = []
    paraphrases: list[dict[str, str]] = []
    for slide in slides:
        truth = slide_truth(slide.seed)
        questions = list(_questions(truth, SEEN, 1))
        others = list(_questions(truth, UNSEEN, 3))
        for number, ((file, question), (_, other)) in enumerate(zip(questions, others, strict=True), start=1):
            name = f"{slide.name}-{number}"
            by_file.setdefault(file, []).append(_row_a(name, slide, question))
            if question.form == "free":
                label = "infiltration" if question.topic == NECROSIS.name else _LABELS[question.task]
                lines.append(_row_b(f"{label}_{name}_1", slide, question, label))
            if question.form != "yes_no":  # another wording of a Yes/No question names another value
                paraphrases.append({"key": f"{file}/{name}", "question": stem(other)})
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    for file, rows in by_file.items():
        (folder / "dataset" / f"{file}_test.json").write_text(json.dumps(rows, indent=1) + "\n")
    _write_lines(folder / "WSI-Bench-test.jsonl", lines)
    _write_lines(folder / "paraphrases.jsonl", paraphrases)
    with (folder / "slides.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("slide", "project", "seed"), *((s.name, s.project, s.seed) for s in slides)])
    return slides


def name_slides(seeds: Iterable[int]) -> list[NamedSlide]:
    """Names like TCGA's: project, patient, and the number of the patient's slide."""
    patients: dict[str, int] = {}
    named: list[NamedSlide] = []
    for seed in seeds:
        pattern = slide_truth(seed).pattern
        count = patients.get(pattern, 0)
        patients[pattern] = count + 1
        # Slides 0 and 1 are of one patient, 2 and 3 of one each, 4 and 5 of one, and so on.
        group, within = divmod(count, 4)
        patient, number = group * 3 + max(0, within - 1), 2 if within == 1 else 1
        name = f"SYN-{pattern[:2].upper()}-{patient:04d}-01Z-00-DX{number}.{seed}"
        named.append(NamedSlide(name, f"SYN-{pattern.upper()}", seed))
    return named


def stem(question: Question) -> str:
    """The question without its options."""
    return _OPTIONS.sub("", question.text) if question.form == "letter" else question.text


def _questions(truth: SlideTruth, wordings: Wordings, stream: int) -> Iterator[tuple[str, Question]]:
    """Every topic with options and open, a Yes/No question, a description and a report, each with its file."""
    rng = np.random.default_rng([truth.seed, 5, stream])
    for topic in TOPICS:
        if file := _choice_file(topic):
            yield file, letter_question(topic, truth, wordings, rng)
        yield topic.task, open_question(topic, truth, wordings, rng)
    yield "Prognosis_TF_question", yes_no_question(PROGNOSIS, truth, wordings, rng)
    # The same task in every wording.
    summary = summary_question(truth, wordings, np.random.default_rng([truth.seed, 6]))
    yield summary.task, summary
    yield "1_Report", report_question(truth, wordings, rng)


def _choice_file(topic: Topic) -> str | None:
    if topic.task.endswith("_Description") and topic is not STROMA:
        return "Morphology_choice"
    return _CHOICE_FILES.get(topic.name)


def _row_a(name: str, slide: NamedSlide, question: Question) -> dict[str, Any]:
    text = question.text
    if question.form == "letter":
        listed = " ".join(f"{letter}) {option}" for letter, option in zip("ABCD", question.options, strict=False))
        text = f"{stem(question)} {listed}"
    turns = [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": question.answer}]
    return {"id": name, "image": slide.image, "conversations": turns}


def _row_b(name: str, slide: NamedSlide, question: Question, label: str) -> dict[str, str]:
    return {
        "question_id": name,
        "image": slide.image,
        "question": question.text,
        "T-answer": question.answer,
        "metadata": label,
    }


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
