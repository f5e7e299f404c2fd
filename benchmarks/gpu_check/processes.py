"""Each check in a process of its own: one that dies or hangs takes nothing along, and leaves its log.

On a CPU the processes are forked from one that has imported torch and computed nothing, which spares each of them three
seconds. CUDA wants new ones.
"""

import faulthandler
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.gpu_check.checks import Check
from benchmarks.gpu_check.results import CheckSkipped, Finding, Outcome, State
from benchmarks.gpu_check.setting import Setting

Context = ForkServerContext | SpawnContext


def processes_for(setting: Setting, warm: Sequence[str]) -> Context:
    """How processes begin; `warm` are the modules that a CPU's are born with."""
    if setting.on_gpu:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(warm))
    return context


def run_apart(check: Check, setting: Setting, context: Context) -> tuple[Outcome, str]:
    """Runs the check to its end or its limit: what became of it, and its log."""
    result, log = (setting.scratch / f"{check.name}.{ending}" for ending in ("json", "log"))
    result.unlink(missing_ok=True)
    started = time.monotonic()
    process = context.Process(target=_in_child, args=(check, setting, result, log))
    process.start()
    process.join(check.limit_s)
    hangs = process.is_alive()
    # Also what it has started, which may outlive it.
    _kill_group(process)
    process.join()
    told = log.read_text(errors="replace") if log.exists() else ""
    if result.exists():
        return Outcome.model_validate_json(result.read_text()), told
    why = f"not done after {check.limit_s:g} s" if hangs else f"its process ended: {_ending(process.exitcode)}"
    return Outcome(check=check.name, state="failed", took_s=time.monotonic() - started, reason=why), told


def run_here(check: Check, setting: Setting) -> Outcome:
    """Runs the check in this process; whatever goes wrong in it is its failure."""
    started, cpu_s = time.monotonic(), _cpu_s()
    finding, reason = Finding(), ""
    state: State = "failed"
    try:
        finding = check.run(setting)
        reason = "; ".join(number.fault for number in finding.numbers if not number.holds)
        state = "failed" if reason else "passed"
    except CheckSkipped as skipped:
        state, reason = "skipped", str(skipped)
    except Exception as error:  # noqa: BLE001 - a check that breaks off has failed, the others go on
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    return Outcome(
        check=check.name,
        state=state,
        took_s=round(time.monotonic() - started, 2),
        cpu_s=round(_cpu_s() - cpu_s, 2),
        reason=" ".join(without_paths(reason).split()),
        numbers=finding.numbers,
        facts=finding.facts,
        notes=tuple(without_paths(note) for note in finding.notes),
    )


def without_paths(text: str) -> str:
    """Folders are cut off: results are published, and whose machine it was is nobody's business."""
    return re.sub(r"(?:/[^\s/'\":,]+)+/", "…/", text)


def _cpu_s() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _in_child(check: Check, setting: Setting, result: Path, log: Path) -> None:
    os.setsid()
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    faulthandler.enable()
    outcome = run_here(check, setting)
    sys.stdout.flush()
    draft = result.with_suffix(".part")
    draft.write_text(outcome.model_dump_json())
    draft.rename(result)


def _kill_group(process: BaseProcess) -> None:
    assert process.pid is not None, "it was started"
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone, or not yet a group of its own
        process.kill()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"
