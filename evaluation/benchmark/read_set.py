"""Finds out the layout of a question set and reads it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Final

from evaluation.benchmark.items import QuestionSet
from evaluation.benchmark.read_json import json_lines, json_list
from evaluation.benchmark.tables import read_multipathqa, read_plain, read_slidebench, read_wsi_vqa
from evaluation.benchmark.wsi_bench import read_layout_a, read_layout_b
from evaluation.errors import UnreadableSet

READERS: Final[dict[str, Callable[[Path], QuestionSet]]] = {
    "wsi-bench-a": read_layout_a,
    "wsi-bench-b": read_layout_b,
    "slidebench": read_slidebench,
    "multipathqa": read_multipathqa,
    "wsi-vqa": read_wsi_vqa,
    "jsonl": read_plain,
}


def read_set(path: Path, layout: str | None = None) -> QuestionSet:
    """The set at this path; `layout` is a key of `READERS`, None finds it out.

    Raises:
        UnreadableSet: it is of no layout that is known, or a row is not whole.
    """
    if not path.exists():
        raise UnreadableSet(f"There is no {path.name}: name a file or a folder of questions.")
    return READERS[layout or _layout_of(path)](path)


def _layout_of(path: Path) -> str:
    if path.is_dir():
        return "wsi-bench-a"
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = set(next(csv.reader(file), []))
        found = "multipathqa" if "benchmark_name" in head else "slidebench" if {"Slide", "Question"} <= head else None
    elif path.suffix == ".json":
        rows = json_list(path)
        found = (
            "wsi-bench-a" if rows and "conversations" in rows[0] else "wsi-vqa" if rows and "Id" in rows[0] else None
        )
    else:
        first = next(json_lines(path), {})
        found = "wsi-bench-b" if "T-answer" in first else "jsonl" if "answer" in first else None
    if found is None:
        raise UnreadableSet(f"{path.name} is of no known layout; name it with --layout ({', '.join(READERS)}).")
    return found
