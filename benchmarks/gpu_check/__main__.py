"""`make gpu-check`: Eyepiece's encoders, projector and trainer on a GPU. One command, no network, no server.

    python -m benchmarks.gpu_check                          on a machine with an NVIDIA GPU
    python -m benchmarks.gpu_check --device cpu --small     the same code on a CPU: does it run at all?

Needs this repository and torch (2.11 or newer, with CUDA), timm, transformers, safetensors, h5py, numpy, pydantic;
pytest and hypothesis for the suite's own GPU tests. Each check is a process of its own with a time limit. Ends with
`N passed, N failed, N skipped`; exit status 1 when one failed, 2 when the device is not there. Every number goes to
benchmarks/results, of a small run or a CPU to benchmarks/results/local.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

from benchmarks.gpu_check.checks import SUITE, Check, Suite
from benchmarks.gpu_check.gap import explain_gap
from benchmarks.gpu_check.processes import Context, processes_for, run_apart
from benchmarks.gpu_check.record import RESULTS, record_path, write_record
from benchmarks.gpu_check.results import Outcome, last_line
from benchmarks.gpu_check.setting import Setting

_LOG_LINES: Final = 40
# Less is not worth to begin with.
_LEAST_S: Final = 20


def main(arguments: Sequence[str] | None = None, suite: Suite = SUITE) -> int:
    """Runs the checks, prints and records what they find; see the module for the exit status."""
    options = _parser(suite).parse_args(arguments)
    chosen = [check for check in suite.checks if not options.only or check.name in options.only]
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        setting = Setting(options.device, options.small, Path(folder))
        _stay_small(setting)
        context = processes_for(setting, suite.warm)
        device, log = run_apart(suite.device, setting, context)
        if device.state != "passed":
            print(*log.splitlines()[-_LOG_LINES:], device.reason, sep="\n", file=sys.stderr)
            return 2
        outcomes, day = [], date.today()
        path = record_path(options.out or _folder(setting), device.facts["device"], day)
        for outcome in _outcomes(chosen, setting, context, options.budget_s):
            outcomes.append(outcome)
            print(outcome.text, flush=True)
            # After every check: whoever interrupts the run keeps what there is.
            write_record(path, setting, day, device.facts, outcomes)
    gap = explain_gap(outcomes) if setting.on_gpu else []
    print(*gap, f"Recorded in {path.name}.", last_line(outcomes), sep="\n")
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


def _parser(suite: Suite) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 …, cpu (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="sizes that end on a CPU within a minute")
    parser.add_argument("--only", nargs="+", choices=[check.name for check in suite.checks], help="these checks alone")
    parser.add_argument("--budget-s", type=float, help="seconds in all; what cannot begin in time is skipped")
    parser.add_argument("--out", type=Path, help="folder for the record (default: benchmarks/results, see above)")
    return parser


def _outcomes(checks: Sequence[Check], setting: Setting, context: Context, budget_s: float | None) -> Iterator[Outcome]:
    ends = None if budget_s is None else time.monotonic() + budget_s
    for check in checks:
        left_s = check.limit_s if ends is None else min(check.limit_s, ends - time.monotonic())
        if left_s < min(_LEAST_S, check.limit_s):
            yield Outcome(check=check.name, state="skipped", took_s=0, reason="no time was left")
            continue
        outcome, log = run_apart(replace(check, limit_s=left_s), setting, context)
        if outcome.state == "failed":
            print(
                f"--- {check.name}, the end of its log:", *log.splitlines()[-_LOG_LINES:], "---", sep="\n", flush=True
            )
        yield outcome


def _folder(setting: Setting) -> Path:
    return RESULTS if setting.on_gpu and not setting.small else RESULTS / "local"


def _stay_small(setting: Setting) -> None:
    """On a CPU with other work: threads that wait for each other, and a compiler's helpers, cost more than they do."""
    if setting.small and not setting.on_gpu:
        for variable in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):
            os.environ.setdefault(variable, "1")


if __name__ == "__main__":
    sys.exit(main())
