import json
from pathlib import Path

import pytest

from benchmarks import peer_pipelines
from benchmarks.peer_pipeline_run import Job, Run
from benchmarks.peer_pipelines import absent, chosen, measure, report


def options(*arguments: str):
    return peer_pipelines._parser().parse_args(arguments)


def test_without_checkouts_ours_alone_runs_and_a_sentence_says_so() -> None:
    assert list(chosen(options())) == ["eyepiece", "eyepiece_tiles"]
    assert absent(options()) == [
        "prov-gigapath is not measured: give a checkout with --gigapath.",
        "TRIDENT is not measured: give a checkout with --trident.",
    ]


def test_a_checkout_adds_its_pipelines() -> None:
    given = options("--gigapath", "a", "--trident", "b")

    assert chosen(given) == {
        "eyepiece": None,
        "eyepiece_tiles": None,
        "gigapath": "a",
        "trident_pil": "b",
        "trident_numpy": "b",
    }
    assert absent(given) == []


def test_ours_reads_every_tile_in_a_process_of_its_own(small_s420: Path) -> None:
    whole, tiles = (peer_pipelines.run(Job(name, str(small_s420), None)) for name in ("eyepiece", "eyepiece_tiles"))

    assert whole.tiles == tiles.tiles > 5
    assert whole.cpu_s > 0
    assert whole.peak_mb > 50


def test_a_pipeline_that_fails_is_left_out_with_a_sentence(
    small_s420: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(small_s420, {"gigapath": str(tmp_path)}, 1)

    assert found == {}
    assert "prov-gigapath process_slide is left out, it failed: ModuleNotFoundError" in capsys.readouterr().err


def test_the_table_compares_tiles_per_cpu_second() -> None:
    found = {
        "eyepiece_tiles": [Run(100, 0.5, 0.6, 200.0)],
        "gigapath": [Run(90, 9.0, 8.0, 5_000.0), Run(90, 4.5, 5.0, 5_200.0), Run(90, 9.0, 8.0, 5_100.0)],
    }

    assert report(found).splitlines()[-1] == "| prov-gigapath process_slide | 90 | 10 | 8.0 | 5100 | 20.0 |"


def test_the_json_holds_every_run(tmp_path: Path, small_s420: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_pipelines, "synthetic_slide", lambda *_: small_s420)
    ran = Run(100, 0.5, 0.6, 200.0)
    monkeypatch.setattr(peer_pipelines, "measure", lambda *_: {"eyepiece_tiles": [ran]})
    monkeypatch.setattr("benchmarks.write_results.LOCAL", tmp_path)

    peer_pipelines.main([])

    written = json.loads((tmp_path / "peer_pipelines.json").read_text())
    assert written["runs"]["pow2small"]["eyepiece_tiles"] == [
        {"tiles": 100, "cpu_s": 0.5, "wall_s": 0.6, "peak_mb": 200.0}
    ]
    assert str(small_s420) not in json.dumps(written)
