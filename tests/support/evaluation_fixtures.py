"""Fixtures of the evaluation with their right values: those of the repository, and those of ../shared where it is."""

import json
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "evaluation" / "fixtures"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "evaluation"


def fixture_rows(name: str) -> list[dict[str, Any]]:
    """Of a JSONL file of the repository."""
    return rows_of(FIXTURES / name)


def fixture(name: str) -> Any:
    """A JSON file of the repository."""
    return json.loads((FIXTURES / name).read_text())


def shared(name: str) -> Path:
    """A file or folder that is not for the repository; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared/evaluation/{name}")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def needs_language_data() -> None:
    """Skips the test where `make language-data` has not been run."""
    from evaluation.errors import MissingLanguageData
    from evaluation.metrics.language_data import language_data_record

    try:
        language_data_record()
    except MissingLanguageData as error:
        pytest.skip(str(error))
