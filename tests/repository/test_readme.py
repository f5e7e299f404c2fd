"""The README keeps its word: the flow table names real files, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("place", re.findall(r"^\| \d \|[^|]*\| `([^`]+)`", README, re.MULTILINE))
def test_every_step_of_the_flow_is_where_the_table_says(place: str) -> None:
    assert (ROOT / place).exists()


def test_the_flow_has_its_nine_steps_in_order() -> None:
    assert re.findall(r"^\| (\d) \|", README, re.MULTILINE) == [str(step) for step in range(1, 10)]


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("path", re.findall(r"`((?:server|encoders)/[a-z_]+\.py)`", README))
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()
