"""Tells the API which processes of `eyepiece up` keep exiting: a small JSON file, replaced whole.

{"vllm": "exit code 1, again in 4 s"}
"""

import json
import os
from pathlib import Path

from server.machine.supervise import Change


class CrashLoopFile:
    """Takes the supervisor's changes; the file lists the components in a crash loop and how each exited last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._exits: dict[str, str] = {}
        self._looping: set[str] = set()
        self._write()

    def __call__(self, change: Change) -> None:
        """Note one change; a component that gets ready is out of its loop."""
        if change.state == "exited":
            self._exits[change.name] = change.detail
        elif change.state == "crash loop":
            self._looping.add(change.name)
        elif change.state == "ready":
            self._looping.discard(change.name)
        self._write()

    def _write(self) -> None:
        loops = {name: self._exits.get(name, "") for name in sorted(self._looping)}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(loops))
        os.replace(temporary, self.path)


def crash_loops(path: Path | None) -> dict[str, str]:
    """Components that keep exiting, and how; nothing where nobody supervises, or the file is not there."""
    if path is None:
        return {}
    try:
        return {str(name): str(how) for name, how in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
