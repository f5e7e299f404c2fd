"""Processes to supervise, and what the supervisor says of them, for tests."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from server.machine.supervise import Change, Component, RestartPolicy

QUICK = RestartPolicy(first_delay_s=0.01, longest_delay_s=0.03, crash_loop_after=3)
SAY_PID = "import os; print(os.getpid(), flush=True)\n"
BECOME_READY = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()\n"
FOREVER = "import time\nwhile True: time.sleep(60)\n"
# Long enough for any machine; nothing waits for it to pass.
PATIENCE_S = 60.0


class Changes:
    """Everything that was reported; `on_change` may act on it."""

    def __init__(self, on_change: Callable[[Change], None] = lambda change: None) -> None:
        self.all: list[Change] = []
        self._on_change = on_change

    def __call__(self, change: Change) -> None:
        self.all.append(change)
        self._on_change(change)

    def details(self, state: str) -> list[str]:
        """What was said with each entry into a state."""
        return [change.detail for change in self.all if change.state == state]

    @property
    def story(self) -> list[str]:
        """Names and states, in order."""
        return [f"{change.name} {change.state}" for change in self.all]


def component(folder: Path, name: str, script: str, stop_grace_s: float = PATIENCE_S) -> Component:
    """A Python process that is ready when it has made the file named by its first argument."""
    marker = folder / f"{name}.ready"
    command = (sys.executable, "-c", script, str(marker))
    return Component(name, command, dict(os.environ), folder / f"{name}.log", marker.exists, stop_grace_s)


def stop_ourselves() -> None:
    """As an operator ends the supervisor."""
    os.kill(os.getpid(), signal.SIGTERM)
