"""A lower claim to the processor for a process that others must not wait for."""

import os
from contextlib import suppress
from pathlib import Path

_LOWEST = 19


def lower_priority(pid: int, by: int) -> None:
    """Set the process's niceness to this one's and `by` more, 19 at most; where the platform refuses, it stays.

    Every five take away two thirds of what the process gets beside others. It must have one thread: later ones inherit
    it. Where Linux gives each session a share of its own (`sched_autogroup`), niceness counts only within it, and a
    new session begins in the middle: so the session gets it too, which its other processes, if any, share.
    """
    with suppress(OSError):
        niceness = min(_LOWEST, os.getpriority(os.PRIO_PROCESS, 0) + by)
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        if niceness and os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
