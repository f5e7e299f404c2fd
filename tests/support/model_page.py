"""The commands of docs/published-models.md, by the heading that they stand under."""

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "published-models.md"


def commands_of(heading: str) -> list[list[str]]:
    """Each `eyepiece …` of the section's blocks without that word, in the page's order."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", section, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("eyepiece ")]
    return [shlex.split(line)[1:] for line in lines]
