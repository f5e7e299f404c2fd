"""JSON of other people's sets, read strictly: what is not whole is an error that names its place."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.errors import UnreadableSet


def json_list(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON list of objects.

    Raises:
        UnreadableSet: it is something else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UnreadableSet(f"{path.name} is no JSON file that can be read.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnreadableSet(f"{path.name} is no JSON list of objects.")
    return rows


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file; empty lines are passed over.

    Raises:
        UnreadableSet: a line is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (ValueError, OSError) as error:
        raise UnreadableSet(f"{path.name} cannot be read as UTF-8 text.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UnreadableSet(f"{path.name}, line {number} is no JSON object.")
            yield row


def text_of(row: Mapping[Any, Any], name: str, where: str) -> str:
    """A field that must be a text with something in it.

    Raises:
        UnreadableSet: it is not.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UnreadableSet(f"{where}: `{name}` is missing or is no text.")
    return value
