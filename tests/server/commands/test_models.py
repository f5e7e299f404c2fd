"""`eyepiece models …` as a person types it, with tiny checkpoints."""

from pathlib import Path

import pytest
from toy_checkpoint import Toy, toy_manifest
from typer.testing import CliRunner

from model_store.manifest import Manifest
from model_store.manifest_text import manifest_text
from server.__main__ import app


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    manifest = toy_manifest()
    return manifest.model_copy(update={"llm": manifest.llm.model_copy(update={"dtype": "float16"})})


def test_a_quantised_model_is_installed_listed_and_verified_under_its_own_name(
    tmp_path: Path, manifest: Manifest
) -> None:
    toy = Toy(tmp_path / "downloads", manifest)
    toy.write_encoders()
    toy.write_merged()
    (tmp_path / "toy.toml").write_text(manifest_text(manifest))
    data = ["--data-dir", str(tmp_path / "data")]
    files = ["--manifest", str(tmp_path / "toy.toml"), "--downloads", str(toy.folder)]

    converted = CliRunner().invoke(app, ["models", "convert", "toy", *files, "--quantize", "fp8", *data])
    listed = CliRunner().invoke(app, ["models", "list", *data])
    verified = CliRunner().invoke(app, ["models", "verify", "toy-fp8", "--device", "cpu", *data])

    assert "next: eyepiece up --model toy-fp8" in converted.output
    assert [line.split()[:2] for line in listed.output.splitlines() if "toy" in line] == [["toy-fp8", "installed"]]
    assert "language model fp8, computed in float16; digest " in verified.output
    assert "golden vector  none" in verified.output


def test_a_quantisation_that_is_not_known_is_refused(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["models", "convert", "wsi-llava", "--quantize", "int3"])

    assert refused.exit_code == 2
    assert "int3" in refused.output
