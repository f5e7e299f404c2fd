"""WSI-Bench in its two layouts, which are two different test sets: of B's 2,838 rows 561 are not in A.

A   a folder of JSON lists, a file a task: id, image, conversations [{from, value}], "<image>\\n" before the question
B   one JSONL of open questions: question_id, image, question, T-answer, metadata

Ids of A repeat between files, so a key is (file, id). Closed questions exist in A only. Turns are found by who speaks:
a training row has them the other way round.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluation.benchmark.items import Form, Item, QuestionSet, patient_of, project_of, slide_name
from evaluation.benchmark.read_json import json_lines, json_list, text_of
from evaluation.benchmark.read_options import options_in
from evaluation.errors import UnreadableSet
from evaluation.metrics.closed import LETTERS, clean_truth


@dataclass(frozen=True)
class Task:
    """A task with the names of its files in A, its labels in B, and the rows that the published sets have of it."""

    name: str
    group: str
    form: Form
    files: tuple[str, ...]
    labels: tuple[str, ...]
    rows_a: int
    rows_b: int


# Counted in XinhengLyu/WSI-LLaVA @4935038 (A) and @f9ac921 (B).
TASKS: Final = (
    Task(
        "Global_Morphology_Description",
        "Morphology",
        "open",
        ("Global_Morphology_Description",),
        ("Caption",),
        208,
        208,
    ),
    Task("Key_Diagnostic_Description", "Morphology", "open", ("Key_Diagnostic_Description",), ("Feature",), 208, 208),
    Task(
        "Regional_Structure_Description",
        "Morphology",
        "open",
        ("Regional_Structure_Description",),
        ("cellular", "tissue", "infiltration"),
        593,
        593,
    ),
    Task(
        "Specific_Feature_Description",
        "Morphology",
        "open",
        ("Specific_Feature_Description",),
        ("Morphology",),
        949,
        950,
    ),
    Task("Morphology_choice", "Morphology", "letter", ("Morphology_choice",), (), 682, 0),
    Task("Histological_Typing", "Diagnosis", "open", ("Histological_Typing",), ("Classification",), 208, 208),
    Task("Grading", "Diagnosis", "open", ("Grading",), ("Grade",), 128, 128),
    Task("Molecular_Subtyping", "Diagnosis", "open", ("Molecular_Subtyping",), ("Subtype",), 48, 48),
    Task("Staging", "Diagnosis", "open", ("Staging",), ("Stage",), 191, 191),
    Task(
        "Diagnosis_choice",
        "Diagnosis",
        "letter",
        ("Diagnosis_choice", "Molecular_Subtyping_choice", "Staging_choice"),
        (),
        606,
        0,
    ),
    Task("Treatment_Planing", "Treatment", "open", ("Treatment_Planing",), ("Treatment",), 48, 48),
    Task("Prognosis", "Treatment", "open", ("Prognosis",), ("Prognosis",), 48, 48),
    Task("Prognosis_TF_question", "Treatment", "yes_no", ("Prognosis_TF_question",), (), 48, 0),
    Task("Report", "Report", "open", ("1_Report",), ("Report",), 208, 208),
)
LAYOUT_A: Final = "WSI-Bench, layout A"
LAYOUT_B: Final = "WSI-Bench, layout B"
_BY_FILE: Final = {name: task for task in TASKS for name in task.files}
_BY_LABEL: Final = {label: task for task in TASKS for label in task.labels}
_IMAGE: Final = "<image>"


def published_rows(layout: str) -> dict[str, int]:
    """Rows by task of the published test set of that layout; {} of any other."""
    counts = {LAYOUT_A: [task.rows_a for task in TASKS], LAYOUT_B: [task.rows_b for task in TASKS]}.get(layout, [])
    return {task.name: count for task, count in zip(TASKS, counts, strict=bool(counts)) if count}


def read_layout_a(path: Path) -> QuestionSet:
    """A folder of files of layout A, or one of them.

    Raises:
        UnreadableSet: a row is not of the layout, an id repeats in its file, or a closed truth is none of its options.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    notes: list[str] = []
    items: list[Item] = []
    for file in files:
        task = _BY_FILE.get(file.stem.removesuffix("_test").removesuffix("_train"))
        if task is None:
            notes.append(f"{file.name} is no task of WSI-Bench and was left out")
            continue
        items += _unique(file.name, (_row_a(file, task, row, notes) for row in json_list(file)))
    if not items:
        raise UnreadableSet(f"{path.name} holds no questions of WSI-Bench's layout A.")
    return QuestionSet(path.name, LAYOUT_A, tuple(items), tuple(notes))


def read_layout_b(path: Path) -> QuestionSet:
    """The JSONL of layout B.

    Raises:
        UnreadableSet: a row is not of the layout, or an id repeats.
    """
    notes: list[str] = []
    items = tuple(_unique(path.name, (_row_b(path, row, notes) for row in json_lines(path))))
    return QuestionSet(path.name, LAYOUT_B, items, tuple(notes))


def _row_a(file: Path, task: Task, row: dict[str, Any], notes: list[str]) -> Item:
    turns = row.get("conversations")
    said = {
        turn.get("from"): turn.get("value")
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict)
    }
    where = f"{file.name}, id {row.get('id')}"
    question, answer = text_of(said, "human", where), text_of(said, "gpt", where)
    key = f"{file.stem.removesuffix('_test')}/{text_of(row, 'id', where)}"
    return _item(key, task, file.stem.removesuffix("_test"), text_of(row, "image", where), question, answer, notes)


def _row_b(path: Path, row: dict[str, Any], notes: list[str]) -> Item:
    where = f"{path.name}, question_id {row.get('question_id')}"
    label = text_of(row, "metadata", where)
    task = _BY_LABEL.get(label)
    if task is None:
        raise UnreadableSet(f"{where}: `{label}` is no label of WSI-Bench.")
    texts = (text_of(row, name, where) for name in ("question_id", "image", "question", "T-answer"))
    key, image, question, answer = texts
    return _item(key, task, label, image, question, answer, notes)


def _item(key: str, task: Task, label: str, image: str, question: str, answer: str, notes: list[str]) -> Item:
    text = question.replace(_IMAGE, "").strip()
    truth = answer.strip()
    options: tuple[str, ...] = ()
    if task.form != "open":
        options = options_in(text) if task.form == "letter" else ()
        truth = closed_truth(key, answer, ("Yes", "No") if task.form == "yes_no" else tuple(LETTERS[: len(options)]))
        if truth != answer.strip():
            notes.append(f"{key}: the truth {answer!r} was read as {truth}")
    slide = slide_name(image)
    return Item(
        key, task.name, task.group, task.form, slide, patient_of(slide), project_of(image), text, truth, options, label
    )


def closed_truth(key: str, answer: str, allowed: tuple[str, ...]) -> str:
    """The truth of a closed question, cleaned of quotation marks and fences.

    Raises:
        UnreadableSet: it is none of what may be answered.
    """
    truth = clean_truth(answer)
    if truth not in allowed:
        raise UnreadableSet(f"{key}: the truth {answer!r} is none of {', '.join(allowed) or 'no options'}.")
    return truth


def _unique(name: str, items: Iterator[Item]) -> list[Item]:
    found = list(items)
    repeated = [key for key, count in Counter(item.key for item in found).items() if count > 1]
    if repeated:
        raise UnreadableSet(f"{name}: the id {repeated[0]} stands there more than once.")
    return found


def answers_b(rows: list[tuple[Item, str]]) -> Iterator[str]:
    """Lines of an answers file of layout B, as its own scripts read them."""
    for item, answer in rows:
        row = {"question_id": item.key, "image": item.slide, "question": item.question, "answer": answer}
        yield json.dumps({**row, "T-answer": item.truth, "metadata": item.label or item.task}, ensure_ascii=False)
