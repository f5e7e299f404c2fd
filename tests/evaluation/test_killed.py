"""A run that is killed at any moment goes on where it was, and ends with the bytes of one that was not."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from evaluation.report.write import write_report
from evaluation.run_folder import RunFolder
from evaluation.scoring.score_run import ScoreOptions, score_run
from evaluation.stand_ins.rule_judge import rule_judge
from evaluation.stand_ins.serve import Asked, serve
from evaluation.stand_ins.thumbnail import SeenSlide, ThumbnailStandIn
from synthetic.slide_truth import slide_truth
from synthetic.write_wsi_bench import write_wsi_bench

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "killed_run.py"
KILLS = 3


class Counted:
    """Counts replies, and tells when so many were given: then somebody is killed while others are on their way."""

    def __init__(self) -> None:
        self.count = 0
        self.kill_at: int | None = None
        self.reached = threading.Event()
        self._lock = threading.Lock()
        self._model = ThumbnailStandIn([SeenSlide(np.zeros(18), slide_truth(seed)) for seed in range(12)])

    def model(self, asked: Asked) -> str:
        self._note()
        return self._model(asked)

    def judge(self, asked: Asked) -> str:
        self._note()
        return rule_judge(asked)

    def _note(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self.kill_at:
                self.reached.set()


def results(run: Path) -> dict[str, bytes]:
    folder = RunFolder(run)
    write_report(folder, score_run(folder, ScoreOptions(papers=())))
    written = [*run.glob("*.json"), *run.glob("*.csv"), *run.glob("*.html"), *run.glob("targets/*/answers-as-is.*")]
    return {str(path.relative_to(run)): path.read_bytes() for path in written}


def test_a_run_killed_three_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    write_wsi_bench(tmp_path / "set", range(2_000_200_000, 2_000_200_002))
    counted = Counted()
    with serve(counted.model) as model, serve(counted.judge) as judge:
        command = [sys.executable, str(SCRIPT), str(tmp_path / "set" / "dataset")]
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        subprocess.run([*command, str(whole), model, judge], check=True, capture_output=True)
        once, counted.count = counted.count, 0

        drawn = random.Random(22)
        for number in range(KILLS):
            # Somewhere in each third, of asking and of judging.
            counted.kill_at = drawn.randrange(once * number // KILLS + 1, once * (number + 1) // KILLS)
            counted.reached.clear()
            process = subprocess.Popen(
                [*command, str(killed), model, judge], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            assert counted.reached.wait(300)
            process.kill()
            assert process.wait() == -9
        counted.kill_at = None
        subprocess.run([*command, str(killed), model, judge], check=True, capture_output=True)

    first = results(killed)
    assert first == results(whole)
    # What was on its way when it was killed was asked again, and nothing else was.
    assert once <= counted.count <= once + 3 * KILLS
    log = RunFolder(killed).answers_path("model")
    log.write_text("".join(sorted(log.read_text().splitlines(keepends=True))))
    assert results(killed) == first  # nor does the order of replies matter
