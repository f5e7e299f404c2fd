"""docs/published-models.md leads from MLLM-HWSI's published files to a model: its commands, with files of toy size.

The manifest of toy size is all that the test adds to a command. `make vllm-kinds` goes on to the answer.
"""

import json
from pathlib import Path

import pytest
import torch
from model_page import commands_of
from published_hwsi import toy_hwsi_manifest, untrained, write_published_hwsi
from typer.testing import CliRunner, Result

from model_store.manifest_text import manifest_text
from server.__main__ import app
from server.commands import checks
from server.settings import Settings


@pytest.fixture
def place(tmp_path: Path) -> Path:
    manifest = toy_hwsi_manifest("mllm-hwsi")
    write_published_hwsi(manifest, tmp_path / "place")
    (tmp_path / "toy.toml").write_text(manifest_text(manifest))
    return tmp_path / "place"


def run(command: list[str], place: Path) -> Result:
    """A command of the page, in a data folder of the test's."""
    given = [str(place) if part == "<place>" else part for part in command]
    toy = ["--manifest", str(place.parent / "toy.toml")] if given[1] in ("fetch", "convert") else []
    device = ["--device", "cpu"] if given[1] == "verify" else []
    return CliRunner().invoke(app, [*given, *toy, *device, "--data-dir", str(place.parent / "data")])


def test_the_commands_of_the_page_install_and_verify_it(place: Path) -> None:
    commands = [command for command in commands_of("MLLM-HWSI") if command[0] == "models"]
    assert [command[1] for command in commands] == ["fetch", "convert", "verify"]

    ran = [run(command, place) for command in commands]

    assert [it.exit_code for it in ran] == [0, 0, 0], [it.output for it in ran]
    assert "next: eyepiece up --model mllm-hwsi" in ran[1].output
    assert "recorded; largest differences" in ran[2].output
    assert "doubted" not in ran[2].output


def test_a_projector_that_was_never_trained_is_seen_wherever_the_model_is(place: Path) -> None:
    path = place / "llm" / "vl_projector.pt"
    projector = torch.load(path, weights_only=True)["vl_projector_state_dict"]
    torch.save({"vl_projector_state_dict": untrained(projector)}, path)
    fetch, convert, _ = (command for command in commands_of("MLLM-HWSI") if command[0] == "models")

    outputs = [run(command, place).output for command in (fetch, convert, ["models", "verify", "mllm-hwsi"])]
    listed = run(["models", "list"], place).output
    as_json = json.loads(run(["models", "list", "--json"], place).output)
    found = checks.check_model(Settings(data_dir=place.parent / "data", model="mllm-hwsi"))

    assert all("was never trained" in output for output in (*outputs[1:], listed))
    [row] = [row for row in as_json["models"] if row["name"] == "mllm-hwsi"]
    assert "was never trained" in row["doubts"][0]
    assert (found.state, "was never trained" in found.seen) == ("warn", True)
