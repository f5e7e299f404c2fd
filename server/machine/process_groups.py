"""Ending a process group: everybody but those who tidy up after the others, and then these."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
# Python's (Lib/multiprocessing/resource_tracker.py). It ignores SIGTERM, and when all whose shared memory it knows are
# dead it removes what they left in /dev/shm and ends; nobody else knows of it.
_TRACKER = b"multiprocessing.resource_tracker"
_TRACKERS_END_WITHIN_S = 2.0
_LOOK_EVERY_S = 0.02


def signal_group(leader_pid: int, number: int) -> bool:
    """Whether there was still somebody in the group of a leader that may have ended."""
    try:
        os.killpg(leader_pid, number)
    except ProcessLookupError:
        return False
    return True


def end_group(leader_pid: int) -> None:
    """SIGKILL to all; to resource trackers only when they have not ended by themselves two seconds later."""
    for pid in _members(leader_pid):
        if not _is_tracker(pid):
            _kill(pid)
    deadline = time.monotonic() + _TRACKERS_END_WITHIN_S
    while any(map(_is_tracker, _members(leader_pid))) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    signal_group(leader_pid, signal.SIGKILL)


def _members(leader_pid: int) -> Iterator[int]:
    """Where there is no /proc nobody is found, and nobody spared."""
    for entry in _PROC.glob("[0-9]*"):
        pid = int(entry.name)
        try:
            if os.getpgid(pid) == leader_pid:
                yield pid
        except ProcessLookupError:
            continue


def _is_tracker(pid: int) -> bool:
    try:
        return _TRACKER in (_PROC / str(pid) / "cmdline").read_bytes()  # empty once it has ended
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
