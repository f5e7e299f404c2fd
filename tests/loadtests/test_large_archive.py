"""The load test of a large archive, with a small one."""

from pathlib import Path

import pytest

from loadtests import large_archive


def test_a_small_archive_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("loadtests.results_file.LOCAL", tmp_path)
    monkeypatch.setattr(large_archive, "_REPEATS", 1)

    large_archive.main(["--slides", "30", "--slides-per-day", "7"])

    printed = capsys.readouterr().out
    assert "a round of the reconciler" in printed
    assert "page of 20 failed" in printed
    assert (tmp_path / "large_archive.json").is_file()
