"""The note of a running `eyepiece up` in its data folder, for `eyepiece status`: DATA_DIR/up.json, mode 0600.

It is replaced whole at every change and removed at the end. One that a killed process left is known by that process'
id and start, which no later process shares. It says where secrets lie and never what they are.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from server.machine.supervise import RunningComponent
from server.storage.private_files import write_private

STATE_FILE = "up.json"
_FORMAT = 1
_NAMES = {"pid", "process_start", "started_at_epoch_s", "url", "model", "logs", "state", "processes", "secret_files"}
_PROC = Path("/proc")


class UpStateFile:
    """Written by one `eyepiece up` and gone when the block ends; `facts` are what does not change meanwhile."""

    def __init__(self, data_dir: Path, facts: Mapping[str, Any]) -> None:
        self.path = data_dir / STATE_FILE
        pid = os.getpid()
        process = {"pid": pid, "process_start": process_start(pid), "started_at_epoch_s": time.time()}
        self._facts = {"format": _FORMAT, **process, **facts}

    def write(
        self,
        components: Sequence[RunningComponent],
        addresses: Mapping[str, str],
        *,
        state: str,
        secrets: Mapping[str, str],
    ) -> None:
        """What runs now; `addresses` and `secrets` (file paths) are by component. A full disk is no reason to end."""
        processes = [
            {
                "name": it.name,
                "state": it.state,
                "pid": it.pid,
                "started_at_epoch_s": it.started_at_epoch_s,
                "restarts": it.restarts,
                "address": addresses.get(it.name),
                "log": str(it.log),
                "detail": it.detail.partition("\n")[0],
            }
            for it in components
        ]
        document = {**self._facts, "state": state, "processes": processes, "secret_files": dict(secrets)}
        with contextlib.suppress(OSError):
            write_private(self.path, json.dumps(document, indent=1) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def read_state(data_dir: Path) -> dict[str, Any] | None:
    """The note, or None when there is none that can be read as one.

    Raises:
        PermissionError: it belongs to another user.
    """
    try:
        document = json.loads((data_dir / STATE_FILE).read_text())
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("format") != _FORMAT or not document.keys() >= _NAMES:
        return None
    return document


def is_current(state: Mapping[str, Any]) -> bool:
    """Whether the process that wrote the note still runs."""
    start = process_start(int(state["pid"]))
    return start is not None and start == state["process_start"]


def process_start(pid: int) -> str | None:
    """When the process began, in the kernel's own words; None when there is no such process.

    Where there is no /proc it says only that there is one.
    """
    if not _PROC.is_dir():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "runs"
        return "runs"
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]  # starttime, field 22 of proc(5)
