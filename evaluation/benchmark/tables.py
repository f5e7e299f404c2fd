"""SlideBench-VQA, MultiPathQA, WSI-VQA, and plain JSONL."""

import ast
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from evaluation.benchmark.items import Form, Item, QuestionSet, patient_of, project_of, slide_name
from evaluation.benchmark.read_json import json_lines, json_list, text_of
from evaluation.benchmark.read_options import with_options
from evaluation.benchmark.wsi_bench import closed_truth
from evaluation.errors import UnreadableSet
from evaluation.metrics.closed import LETTERS, clean_truth

SLIDEBENCH: Final = "SlideBench-VQA"
MULTIPATHQA: Final = "MultiPathQA"
WSI_VQA: Final = "WSI-VQA"
PLAIN: Final = "JSONL"
_PANDA: Final = "panda"


def read_slidebench(path: Path) -> QuestionSet:
    """The CSV of SlideBench-VQA: ID, Slide, Tumor, Broad Category, Narrow Category, Question, A-D, Answer.

    Raises:
        UnreadableSet: a row is not whole.
    """
    return QuestionSet(path.name, SLIDEBENCH, tuple(_slidebench(path)))


def _slidebench(path: Path) -> Iterator[Item]:
    for row in csv_rows(path):
        where = f"{path.name}, ID {row.get('ID')}"
        options = tuple(row[letter].strip() for letter in "ABCD" if (row.get(letter) or "").strip())
        slide = slide_name(text_of(row, "Slide", where))
        yield Item(
            key=text_of(row, "ID", where),
            task=text_of(row, "Narrow Category", where),
            group=text_of(row, "Broad Category", where),
            form="letter",
            slide=slide,
            patient=patient_of(slide),
            project=(row.get("Tumor") or "").strip(),
            question=with_options(text_of(row, "Question", where).strip(), options),
            truth=closed_truth(where, text_of(row, "Answer", where), tuple(LETTERS[: len(options)])),
            options=options,
        )


def read_multipathqa(path: Path) -> QuestionSet:
    """The CSV of MultiPathQA. Options are Python lists; the answer is the number of one, counted from 1, or its text;
    PANDA asks for a grade and has none.

    Raises:
        UnreadableSet: a row is not whole.
    """
    return QuestionSet(path.name, MULTIPATHQA, tuple(_multipathqa(path)))


def _multipathqa(path: Path) -> Iterator[Item]:
    for number, row in enumerate(csv_rows(path), start=1):
        where = f"{path.name}, row {number}"
        task = text_of(row, "benchmark_name", where)
        options = _listed(row.get("options") or "", where)
        answer = text_of(row, "answer", where).strip()
        question = (row.get("prompt") or row.get("question") or "").strip()
        if not question:
            raise UnreadableSet(f"{where}: neither `prompt` nor `question` says anything.")
        form: Form = "letter" if options else "number" if task == _PANDA else "open"
        slide = slide_name(text_of(row, "image_path", where))
        yield Item(
            key=f"{task}/{row.get('benchmark_id') or number}/{number}",
            task=task,
            group=task,
            form=form,
            slide=slide,
            patient=patient_of(slide),
            project=(row.get("project") or task).strip(),
            question=question.replace("{options}", "").strip() if not options else _lettered(question, options),
            truth=_letter_of(answer, options, where) if options else answer,
            options=options,
        )


def _lettered(question: str, options: tuple[str, ...]) -> str:
    return with_options(question.replace("{options}", "").strip(), options) + "\nAnswer with a letter."


def _listed(text: str, where: str) -> tuple[str, ...]:
    if not text.strip():
        return ()
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UnreadableSet(f"{where}: the options are no list.") from error
    if not isinstance(found, list) or len(found) > len(LETTERS):
        raise UnreadableSet(f"{where}: the options are no list of at most {len(LETTERS)}.")
    return tuple(str(option).strip() for option in found)


def _letter_of(answer: str, options: tuple[str, ...], where: str) -> str:
    if answer in options:
        return LETTERS[options.index(answer)]
    if answer.isdigit() and 1 <= int(answer) <= len(options):
        return LETTERS[int(answer) - 1]
    raise UnreadableSet(f"{where}: the answer {answer!r} is none of its options.")


def read_wsi_vqa(path: Path) -> QuestionSet:
    """The JSON of WSI-VQA: Id (a case, no slide), Question, Answer, and Choice, four texts, where it is closed.

    Raises:
        UnreadableSet: a row is not whole.
    """
    return QuestionSet(path.name, WSI_VQA, tuple(_wsi_vqa(path)), ("slides are named by case: give a map of slides",))


def _wsi_vqa(path: Path) -> Iterator[Item]:
    for number, row in enumerate(json_list(path)):
        where = f"{path.name}, row {number}"
        case, question = text_of(row, "Id", where), text_of(row, "Question", where).strip()
        answer = text_of(row, "Answer", where).strip()
        options = tuple(str(option).strip() for option in row.get("Choice") or ())
        if options and answer not in options and answer not in LETTERS[: len(options)]:
            raise UnreadableSet(f"{where}: the answer {answer!r} is none of its choices.")
        letter = LETTERS[options.index(answer)] if answer in options else answer
        form: Form = "letter" if options else "open"
        text = with_options(question, options) if options else question
        task = "closed" if options else "open"
        yield Item(f"{case}/{number}", task, "WSI-VQA", form, case, case, "TCGA-BRCA", text, letter, options)


def read_plain(path: Path) -> QuestionSet:
    """JSONL: id, slide, question, answer; where they are there task, group, form, options, patient, project.

    Raises:
        UnreadableSet: a row is not whole, or an id repeats.
    """
    items = tuple(_plain(path, row) for row in json_lines(path))
    if len({item.key for item in items}) < len(items):
        raise UnreadableSet(f"{path.name}: an id stands there more than once.")
    return QuestionSet(path.name, PLAIN, items)


def _plain(path: Path, row: dict[str, Any]) -> Item:
    where = f"{path.name}, id {row.get('id')}"
    image, truth = text_of(row, "slide", where), text_of(row, "answer", where).strip()
    options = tuple(str(option) for option in row.get("options") or ())
    form: Form = row.get("form") or (
        "letter" if options else "yes_no" if clean_truth(truth) in ("Yes", "No") else "open"
    )
    if form not in ("letter", "yes_no", "number", "open"):
        raise UnreadableSet(f"{where}: `form` is letter, yes_no, number or open.")
    if form in ("letter", "yes_no"):
        truth = closed_truth(where, truth, tuple(LETTERS[: len(options)]) if form == "letter" else ("Yes", "No"))
    slide = slide_name(image)
    return Item(
        key=text_of(row, "id", where),
        task=str(row.get("task") or form),
        group=str(row.get("group") or row.get("task") or form),
        form=form,
        slide=slide,
        patient=str(row.get("patient") or patient_of(slide)),
        project=str(row.get("project") or project_of(image)),
        question=text_of(row, "question", where).strip(),
        truth=truth,
        options=options,
    )


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV with a head.

    Raises:
        UnreadableSet: it cannot be read as UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UnreadableSet(f"{path.name} is no CSV in UTF-8.") from error
