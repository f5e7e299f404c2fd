"""Checks that pass, miss a limit, break off, die, hang or are skipped: for the tests of benchmarks.gpu_check."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from benchmarks.gpu_check.checks import Check, Suite
from benchmarks.gpu_check.results import CheckSkipped, Finding, Number
from benchmarks.gpu_check.setting import Setting


def passes(setting: Setting) -> Finding:
    return Finding(numbers=(Number(name="one", value=1, at_least=1),), facts={"device": "made up"})


def misses(setting: Setting) -> Finding:
    return Finding(numbers=(Number(name="half", value=0.5, at_least=1, source="because"), Number(name="two", value=2)))


def breaks_off(setting: Setting) -> Finding:
    raise ValueError(f"cannot read {setting.scratch}/secret.bin")


def dies(setting: Setting) -> Finding:
    print("before the end", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def hangs(setting: Setting) -> Finding:
    threading.Event().wait()
    raise AssertionError("unreachable")


def leaves_a_child(setting: Setting) -> Finding:
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    return Finding(facts={"child": str(child.pid)})


def skips(setting: Setting) -> Finding:
    raise CheckSkipped("there is nothing to see here")


def made_up(
    *functions: Callable[[Setting], Finding], limit_s: float = 60, device: Callable[[Setting], Finding] = passes
) -> Suite:
    checks = tuple(Check(each.__name__, __name__, limit_s, each.__name__) for each in functions)
    return Suite(
        device=Check("device", __name__, 60, device.__name__), checks=checks, warm=("benchmarks.gpu_check.processes",)
    )
