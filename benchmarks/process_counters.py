"""Memory and CPU time of a process as Linux counts them; the high-water mark of memory can be set back."""

import os
from pathlib import Path

_PROC = Path("/proc")
_RESET_PEAK = "5"  # proc(5), clear_refs


def resident_mb() -> float:
    """Resident set size of this process now, in 10^6 bytes."""
    return _status_mb("self", "VmRSS")


def peak_mb(pid: int | None = None) -> float:
    """Largest resident set size since the process (this one, if none is named) began, or since `reset_peak`."""
    return _status_mb("self" if pid is None else str(pid), "VmHWM")


def reset_peak() -> None:
    """Begin a new high-water mark of this process at the present size; OSError where the kernel does not let us."""
    (_PROC / "self" / "clear_refs").write_text(_RESET_PEAK)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, its children not; in steps of a clock tick, mostly 10 ms."""
    # proc(5): the name in brackets may hold anything; utime and stime are fields 14 and 15.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_mb(pid: int) -> float:
    """What a process has read of files so far, from the page cache or not, in 10^6 bytes; mapped memory does not
    count."""
    lines = (_PROC / str(pid) / "io").read_text().splitlines()  # proc(5): rchar
    return int(next(line.split()[1] for line in lines if line.startswith("rchar:"))) / 1e6


def _status_mb(process: str, field: str) -> float:
    lines = (_PROC / process / "status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kib) * 1024 / 1e6
