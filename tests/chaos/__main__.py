"""`make chaos`: the long run, with the real vLLM. Prints its counts; the exit code is 1 when there is a finding."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.plan import shared_out
from chaos.run import Options, run


def options_from(arguments: Sequence[str]) -> tuple[Options, Path | None]:
    """What is asked for, and the folder to work in."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=60, help="slides to encode (60)")
    parser.add_argument("--kills", type=int, default=30, help="processes to kill; at most as many as slides (30)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same slides and victims (1)")
    parser.add_argument("--workers", type=int, default=2, help="encoder workers (2)")
    parser.add_argument("--stand-in", action="store_true", help="no vLLM: something small answers in its place")
    parser.add_argument("--folder", type=Path, help="a new folder to work in, which is kept")
    found = parser.parse_args(arguments)
    return Options(
        seed=found.seed,
        jobs=found.jobs,
        victims=shared_out(found.kills),
        poisons=("reader dies", "reader hangs", "worker dies"),
        spare=2 + found.kills // 5,
        workers=found.workers,
        side_px=2560,
        real_vllm=not found.stand_in,
        reconcile_every_s=5,
    ), found.folder


def main(arguments: Sequence[str]) -> int:
    """Runs it; keeps the folder with all logs when something was found."""
    options, wanted = options_from(arguments)
    folder = wanted or Path(tempfile.mkdtemp(prefix="eyepiece-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    report = run(options, folder, lambda step: print(f"{time.monotonic() - began:6.0f} s  {step}", flush=True))
    print(report.table())
    if report.findings:
        print(f"The logs are in {folder}.")
    elif wanted is None:
        shutil.rmtree(folder)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
