"""Starts processes in order, restarts those that die, stops them in reverse. Knows nothing of what they do.

    Component → start → (ready? restart with back-off) … → SIGTERM → grace → SIGKILL of its process group

Each child leads a session of its own, so that Ctrl-C reaches only the supervisor, prints into its own log file
(`server.machine.component_log`), and gets `death_signal` when the supervisor is killed (Linux). Use it from the main
thread only: that signal is sent when the *thread* that started the child ends, and Python delivers signals to the main
thread.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, Self

from server.machine.component_log import ComponentLog
from server.machine.liveness import Liveness
from server.machine.process_groups import end_group, signal_group

POLL_S = 0.05
PROBE_EVERY_S = 0.25
# What a component leaves behind when it dies gets so long to tidy up; a vLLM engine takes a second or two, or for ever.
LEFTOVERS_S = 5.0
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES = 16 * 1024
REFUSED_EXIT_CODE = 2  # bad arguments or surroundings: starting again cannot help
PR_SET_PDEATHSIG = 1  # linux/prctl.h

State = Literal["starting", "ready", "hung", "exited", "crash loop", "stopped"]


@dataclass(frozen=True)
class Component:
    """One process to keep running; `environment` is all it gets, so secrets never need to be arguments."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[], bool]
    stop_grace_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    liveness: Liveness | None = None


@dataclass(frozen=True)
class RestartPolicy:
    """Delays double from `first_delay_s` to `longest_delay_s`; `stable_after_s` of running starts afresh.

    `crash_loop_after` exits in a row are reported as a crash loop; before the first readiness they end all.
    """

    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    stable_after_s: float = 60.0
    crash_loop_after: int = 3

    def delay_s(self, exits_in_a_row: int) -> float:
        """How long to wait before the next start; `exits_in_a_row` counts from 1."""
        return float(min(self.longest_delay_s, self.first_delay_s * 2 ** (exits_in_a_row - 1)))


@dataclass(frozen=True)
class Change:
    """A component entered `state`; `detail` is for a person: an exit code, the last lines of the log."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class RunningComponent:
    """A component as it is now; `pid` is None while none of its processes runs."""

    name: str
    state: State
    pid: int | None
    started_at_epoch_s: float
    restarts: int
    log: Path
    detail: str


class ComponentError(Exception):
    """A component cannot be brought up; the text ends with the last lines of its log."""


class _Child:
    """What changes about a component while it is supervised."""

    def __init__(self, component: Component) -> None:
        self.component = component
        self.log = ComponentLog(component.log)
        self.process: subprocess.Popen[bytes] | None = None
        self.state: State = "starting"
        self.detail = ""
        self.starts = 0
        self.exits_in_a_row = 0
        self.was_ever_ready = False
        self.is_ready = False
        self.started_at = 0.0
        self.started_at_epoch_s = 0.0
        self.start_again_at: float | None = None
        # Until when what the last process has left behind may go on; None when nothing is left of it.
        self.leftovers_until: float | None = None
        self.next_probe_at = 0.0

    def seen(self) -> RunningComponent:
        """It as others may see it."""
        runs = self.process is not None and self.process.returncode is None
        pid = self.process.pid if self.process is not None and runs else None
        restarts = max(0, self.starts - 1)
        name, log = self.component.name, self.component.log
        return RunningComponent(name, self.state, pid, self.started_at_epoch_s, restarts, log, self.detail)


class Supervisor:
    """Use as a context manager: entering takes over the signals, leaving stops every child."""

    def __init__(self, report: Callable[[Change], None], policy: RestartPolicy = RestartPolicy()) -> None:
        self._report = report
        self._policy = policy
        self._children: list[_Child] = []
        self._signals_received = 0
        self._previous_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def start(self, component: Component) -> None:
        """Starts it; later components stop before it."""
        child = _Child(component)
        self._children.append(child)
        self._spawn(child)

    @property
    def stop_requested(self) -> bool:
        """Whether SIGINT, SIGTERM or SIGHUP has arrived; a second one cuts the graces short."""
        return self._signals_received > 0

    def wait_until_ready(self, names: Iterable[str], timeout_s: float) -> bool:
        """True when all of `names` are ready, False when a signal came first; restarts what dies meanwhile.

        Raises:
            ComponentError: one exits again and again, refuses to start, or is not ready in time.
        """
        waited_for = [child for child in self._children if child.component.name in set(names)]
        deadline = time.monotonic() + timeout_s
        while unready := [child for child in waited_for if not child.was_ever_ready]:
            self._tick()
            for child in self._children:
                self._give_up_if_hopeless(child)
            if time.monotonic() > deadline:
                raise ComponentError(self._story(unready[0], f"was not ready within {timeout_s:.0f} s"))
            if self.stop_requested:
                return False
            time.sleep(POLL_S)
        return True

    def run(self) -> None:
        """Keeps everything running until a signal arrives."""
        while not self.stop_requested:
            self._tick()
            time.sleep(POLL_S)

    def components(self) -> list[RunningComponent]:
        """What is supervised now, in the order of the starts."""
        return [child.seen() for child in self._children]

    def _note(self, child: _Child, state: State, detail: str = "") -> None:
        child.state, child.detail = state, detail
        self._report(Change(child.component.name, state, detail))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals_received += 1

    def _tick(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.start_again_at is not None:
                if _is_clear(child, now) and now >= child.start_again_at:
                    self._spawn(child)
            elif child.process is not None and child.process.poll() is not None:
                self._after_exit(child, child.process, now)
            elif not child.is_ready and now >= child.next_probe_at:
                self._probe(child)
            elif child.is_ready and child.process is not None and _is_hung(child):
                self._end_hung(child, child.process)

    def _spawn(self, child: _Child) -> None:
        component = child.component
        pipe = child.log.open_pipe()
        try:
            child.process = subprocess.Popen(
                component.command,
                env=dict(component.environment),
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(component.death_signal),
            )
        finally:
            os.close(pipe)
        child.starts += 1
        child.started_at = time.monotonic()
        child.started_at_epoch_s = time.time()
        child.start_again_at = None
        child.is_ready = False
        self._note(child, "starting")

    def _probe(self, child: _Child) -> None:
        if child.component.is_ready():
            child.is_ready = child.was_ever_ready = True
            child.log.catch_up()
            self._note(child, "ready")
            if child.component.liveness is not None:
                child.component.liveness.begin()
        child.next_probe_at = time.monotonic() + PROBE_EVERY_S

    def _end_hung(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        """A stopped process hears no SIGTERM; what is left then goes on as after any other exit."""
        child.is_ready = False
        self._note(child, "hung", "it is there and does not answer; it is killed")
        end_group(process.pid)
        process.wait()

    def _after_exit(self, child: _Child, process: subprocess.Popen[bytes], now: float) -> None:
        if signal_group(process.pid, signal.SIGTERM):
            child.leftovers_until = now + LEFTOVERS_S
        if now - child.started_at >= self._policy.stable_after_s:
            child.exits_in_a_row = 0
        child.exits_in_a_row += 1
        child.is_ready = False
        if child.component.liveness is not None:
            child.component.liveness.pause()
        delay_s = self._policy.delay_s(child.exits_in_a_row)
        child.start_again_at = now + delay_s
        child.log.catch_up()
        self._note(child, "exited", f"{ended(process)}, again in {delay_s:g} s")
        if child.was_ever_ready and child.exits_in_a_row == self._policy.crash_loop_after:
            self._note(child, "crash loop", self._story(child, "keeps exiting"))

    def _give_up_if_hopeless(self, child: _Child) -> None:
        process = child.process
        if child.was_ever_ready or child.start_again_at is None or process is None:
            return
        if process.returncode == REFUSED_EXIT_CODE:
            raise ComponentError(self._story(child, "refuses to start"))
        if child.exits_in_a_row >= self._policy.crash_loop_after:
            raise ComponentError(self._story(child, f"exited {child.exits_in_a_row} times"))

    def _story(self, child: _Child, what: str) -> str:
        component = child.component
        return f"{component.name} {what}; the end of its log {component.log}:\n{last_lines(component.log)}"

    def _stop_all(self) -> None:
        for child in reversed(self._children):
            if child.component.liveness is not None:
                child.component.liveness.end()
            if child.leftovers_until is not None:
                _clear(child)
            elif child.process is not None and child.start_again_at is None:
                self._stop(child, child.process)
                child.log.catch_up()
                self._note(child, "stopped")
        self._children.clear()

    def _stop(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM to the leader, which knows its own children; SIGKILL to the whole group after the grace."""
        process.terminate()
        deadline = time.monotonic() + child.component.stop_grace_s
        while process.poll() is None and time.monotonic() < deadline and self._signals_received < 2:
            time.sleep(POLL_S)
        end_group(process.pid)
        process.wait()


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Run in the child before exec: the kernel sends it `death_signal` when the supervisor ends."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended between fork and prctl
            os._exit(1)

    return in_child


def ended(process: subprocess.Popen[bytes]) -> str:
    """How a finished process ended, in words."""
    code = process.returncode
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def last_lines(log: Path) -> str:
    """The end of a log file, indented."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join("    " + line for line in lines[-LOG_TAIL_LINES:])


def _is_hung(child: _Child) -> bool:
    return child.component.liveness is not None and child.component.liveness.hung


def _is_clear(child: _Child, now: float) -> bool:
    """Whether nothing is left of the process before; what is after its time may hold the port or the GPU."""
    if child.leftovers_until is None or child.process is None:
        return True
    if now >= child.leftovers_until:
        _clear(child)
    elif not signal_group(child.process.pid, 0):
        child.leftovers_until = None
    return child.leftovers_until is None


def _clear(child: _Child) -> None:
    if child.process is not None:
        end_group(child.process.pid)
    child.leftovers_until = None
