"""The README and the documents behind it keep their word: the flow table names real files, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FLOW = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("place", re.findall(r"^\| \d \|[^|]*\| `([^`]+)`", FLOW, re.MULTILINE))
def test_every_step_of_the_flow_is_where_the_table_says(place: str) -> None:
    assert (ROOT / place).exists()


def test_the_flow_has_its_nine_steps_in_order() -> None:
    assert re.findall(r"^\| (\d) \|", FLOW, re.MULTILINE) == [str(step) for step in range(1, 10)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_its_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text())
    for target, anchor in links:
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for path in re.findall(r"`((?:server|encoders)/[a-z_/]+\.py)`", page.read_text()):
        assert (ROOT / path).is_file(), path


def anchors(page: Path) -> set[str]:
    """GitHub's: lower case, without punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
