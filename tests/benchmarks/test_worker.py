import json
from pathlib import Path

import pytest

from benchmarks import worker


def test_a_slide_goes_through_the_whole_worker(
    small_s420: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "synthetic_slide", lambda *_: small_s420)
    monkeypatch.setattr("benchmarks.write_results.LOCAL", tmp_path)

    worker.main(["--rounds", "1"])

    written = json.loads((tmp_path / "worker.json").read_text())
    (slide,) = written["slides"]
    assert slide["tiles"] > 5
    assert set(slide["stages_s"]) == {"tile", "encode_tiles", "encode_slide"}
    assert slide["tile_stage"]["cpu_s"] > 0
    assert slide["idle_s"] > 0
    assert slide["reader_peak_mb"] > 20
    assert written["cpu_ratio"]["median"] > 0
    assert "Worker ÷ inline: " in capsys.readouterr().out
