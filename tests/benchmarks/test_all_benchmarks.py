import argparse
import importlib
import subprocess
from pathlib import Path

import pytest

from benchmarks import __main__ as all_benchmarks


def test_options_reach_the_benchmarks_that_have_them() -> None:
    given = argparse.Namespace(folder=Path("f"), long=True, slide=Path("a.svs"), gigapath=Path("g"), trident=None)

    told = all_benchmarks.commands(given)

    assert told["reading"] == ["--folder", "f", "--long", "--slide", "a.svs"]
    assert told["hand_off"] == ["--folder", "f", "--long"]
    assert told["view_tiles"] == ["--folder", "f", "--slide", "a.svs"]
    assert told["worker"] == ["--folder", "f"]
    assert told["peer_pipelines"] == ["--folder", "f", "--long", "--gigapath", "g"]
    for name, arguments in told.items():
        parser = importlib.import_module(f"benchmarks.{name}")._parser()
        parser.parse_args(arguments)


def test_one_that_fails_does_not_keep_the_others_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = []
    monkeypatch.setattr(all_benchmarks, "LOCAL", tmp_path)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        ran.append(command[2])
        return subprocess.CompletedProcess(command, command[2] == "benchmarks.hand_off")

    monkeypatch.setattr(subprocess, "run", run)

    assert all_benchmarks.main([]) == 1
    assert len(ran) == 7
    assert capsys.readouterr().err == "hand_off failed, see above.\n"
