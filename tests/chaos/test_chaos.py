"""The short form of `make chaos`: real processes and real kills, with a stand-in for vLLM."""

from collections import Counter
from pathlib import Path

from chaos.plan import Victim
from chaos.run import Options, run


def test_nothing_is_lost_doubled_or_left_behind_when_processes_are_killed(tmp_path: Path) -> None:
    victims: Counter[Victim] = Counter({"worker": 1, "reader": 2, "redis": 1, "vllm": 1})

    report = run(Options(seed=1, jobs=8, victims=victims, poisons=("reader dies",), spare=2, side_px=1536), tmp_path)

    print(report.table())
    assert report.findings == ()
    assert report.kills == victims
    assert report.jobs.lost_leases >= 1
    assert report.answers > 0
