"""`eyepiece evaluate ablations alignment`: the numbers that go into it are the installed model's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_set import item, open_item, questions
from toy_preference import PACKAGED_MODELS

from encoders.tiling.isolation.reader_limits import ReaderLimits
from evaluation.run_folder import RunFolder
from model_store.installed import open_model
from server.commands.evaluate_alignment import align_model, language_weights, projected, reports_of
from server.commands.outcome import CommandError
from synthetic.write_slide import write_sample_slide
from synthetic.write_wsi_bench import write_wsi_bench


def test_rows_are_projected_as_the_served_model_does() -> None:
    model = open_model(PACKAGED_MODELS, "demo")
    weights = language_weights(model)
    rows = np.random.default_rng(0).standard_normal((32, 192)).astype(np.float16)

    found = projected(model, weights, rows)

    layers = torch.nn.Sequential(torch.nn.Linear(256, 192), torch.nn.GELU(), torch.nn.Linear(192, 192))
    layers.load_state_dict({name: value for name, value in weights.items() if name[0] in "02"})
    padded = torch.nn.functional.pad(torch.from_numpy(rows).float(), (0, 64))
    assert np.allclose(found, layers(padded).detach().numpy(), atol=1e-5)
    assert weights["embed"].shape == (1282, 192)


def test_rows_of_a_model_without_a_projector_are_in_its_space_already() -> None:
    model = open_model(PACKAGED_MODELS, "demo-hierarchical")
    rows = np.ones((3, model.manifest.row_width), np.float16)

    assert np.array_equal(projected(model, language_weights(model), rows), rows.astype(np.float32))


def test_reports_are_each_taken_once_and_three_are_needed() -> None:
    reports = [open_item(number, f"Report {number % 4}.", key=f"r{number}", task="Report") for number in range(6)]

    found = reports_of(questions(*reports, item(9)))

    assert found == {f"s{number}": f"Report {number}." for number in range(4)}
    with pytest.raises(CommandError, match="three slides with different reports"):
        reports_of(questions(*reports[:2]))


def test_an_installed_model_gets_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = write_wsi_bench(tmp_path / "set", range(2_000_200_000, 2_000_200_004))
    (tmp_path / "slides").mkdir()
    for slide in named:
        write_sample_slide(tmp_path / "slides" / f"{slide.name}.svs", seed=slide.seed, width_px=1024, height_px=1024)

    align_model(
        open_model(PACKAGED_MODELS, "demo"), tmp_path / "set" / "WSI-Bench-test.jsonl", tmp_path / "slides",
        RunFolder(tmp_path / "run"), "cpu", ReaderLimits(),
    )  # fmt: skip

    assert (tmp_path / "run" / "ablations" / "alignment-demo.json").is_file()
    assert "Slides beside their reports: demo" in capsys.readouterr().out
