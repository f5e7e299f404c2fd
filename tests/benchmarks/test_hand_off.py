from pathlib import Path

from benchmarks.hand_off import INLINE, PROCESS, HandOff, measure, report
from benchmarks.take_turns import Cost, Turns
from encoders.tiling.isolation.reader_limits import ReaderLimits


def test_both_ways_read_the_same_tiles_and_the_childs_time_counts(small_s420: Path) -> None:
    found = measure(small_s420, ReaderLimits(), 0.25, 8, batch_tiles=3, rounds=1)

    assert found.tiles == 8 < found.all_tiles
    assert found.turns.costs.keys() == {INLINE, PROCESS}
    assert found.child_peak_mb > 20
    assert found.parent_peak_mb > 20


def test_the_ratio_is_of_cpu_time_whatever_the_clock_says() -> None:
    turns = Turns({INLINE: [Cost(4.0, 8.0)], PROCESS: [Cost(5.0, 2.0)]}, [0.9])
    one = HandOff(0.5, 400, 1_000, turns, 1_100.0, 90.0)

    lines = report([one], ReaderLimits(decode_threads=2)).splitlines()

    assert "| 0.5 | 400 | reader process | 80 | 200 | 0.80 | 0.80–0.80 | 1100 | 90 |" in lines
    assert "Ratio 0.800, target 0.85, MISSED." in lines
    assert "Reader's peak 1100 MB, target 1000, MISSED." in lines
