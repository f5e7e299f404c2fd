"""The table of contracts in docs/architecture.md names the kinds that there are, and files that are there."""

from pathlib import Path
from typing import Any, get_args

import pytest

from model_store.contracts.projector import ProjectorSpec
from model_store.contracts.prompt import PromptSpec
from model_store.contracts.slide_stage import SlideStageSpec
from model_store.contracts.tile_encoder import TileEncoderSpec

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def kinds_of(spec: Any) -> list[str]:
    """The words that a discriminated union knows, sorted."""
    union = get_args(spec)[0]
    return sorted(get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(union) or (union,))


FOUND = {
    "tile_encoder": kinds_of(TileEncoderSpec),
    "slide_stage": kinds_of(SlideStageSpec),
    "projector": kinds_of(ProjectorSpec),
    "prompt": kinds_of(PromptSpec),
}


def rows() -> dict[str, list[str]]:
    section = PAGE.read_text().split("## Contracts of a model\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: [cell.strip().strip("`") for cell in line.strip("|").split("|")[1:]] for line in lines}


def test_every_contract_and_every_kind_is_in_the_table() -> None:
    assert {name: cells[2].split(", ") for name, cells in rows().items()} == {
        name: list(kinds) for name, kinds in FOUND.items()
    }


@pytest.mark.parametrize("contract", FOUND)
def test_its_files_are_there(contract: str) -> None:
    words, computes, _ = rows()[contract]

    assert (ROOT / words).is_file()
    assert (ROOT / computes).is_file()
