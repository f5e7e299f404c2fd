"""Seconds of work on a device: warmed up, for as long as it takes to be sure, waited for."""

import math
import time
from collections.abc import Callable

import torch

from benchmarks.gpu_check.setting import Setting

# A GPU needs some tenths of a second to reach the clock and the temperature that it keeps.
_MEASURE_S, _SMALL_MEASURE_S = 1.0, 0.05


def wait_for(setting: Setting) -> None:
    """Returns when the device has done what was queued."""
    if setting.on_gpu:
        torch.cuda.synchronize(setting.device)


def seconds_per_call(work: Callable[[], object], setting: Setting) -> float:
    """Mean over at least a second of calls; once unmeasured before, which chooses kernels and gets memory."""
    timed_s(work, setting)
    measure_s = _SMALL_MEASURE_S if setting.small else _MEASURE_S
    calls = max(1, math.ceil(measure_s / max(timed_s(work, setting), 1e-6)))

    def all_calls() -> None:
        for _ in range(calls):
            work()

    return timed_s(all_calls, setting) / calls


def timed_s(work: Callable[[], object], setting: Setting) -> float:
    """Seconds of one call, until the device has done it."""
    wait_for(setting)
    started = time.perf_counter()
    work()
    wait_for(setting)
    return time.perf_counter() - started
