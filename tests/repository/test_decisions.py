"""docs/decisions: each record has a number of its own, and who refers to one finds it."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = {path.name: path for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
_TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".json", ".service", ".sh"}


def texts() -> dict[Path, str]:
    """Every text of the repository that may refer to a record."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return {path: path.read_text() for path in paths if path.suffix in _TEXTS and path.is_file()}


def test_no_two_records_have_the_same_number() -> None:
    numbers = Counter(name[:4] for name in RECORDS)

    assert [number for number, count in numbers.items() if count > 1] == []


def test_a_records_heading_says_its_number() -> None:
    assert [name for name, path in RECORDS.items() if not path.read_text().startswith(f"# {name[:4]} ")] == []


def test_every_reference_leads_to_the_record_that_it_names() -> None:
    numbers = {name[:4] for name in RECORDS}
    wrong = []
    for path, text in texts().items():
        named = re.findall(r"decisions/(\d{4})(?![\w-])", text)
        wrong += [f"{path.name}: {number}" for number in named if number not in numbers]
        wrong += [f"{path.name}: {name}" for name in re.findall(r"(\d{4}-[a-z0-9-]+\.md)", text) if name not in RECORDS]
        links = re.findall(r"\[(?:decision )?(\d+)\]\((?:[./\w]*decisions/|)(\d{4})-[a-z0-9-]+\.md\)", text)
        wrong += [f"{path.name}: {said} is {meant}" for said, meant in links if int(said) != int(meant)]
    assert wrong == []
