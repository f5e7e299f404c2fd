"""Memory of this process as Linux counts it, with a high-water mark that can be set back."""

from pathlib import Path

_PROC = Path("/proc/self")
_RESET_PEAK = "5"  # proc(5), clear_refs


def resident_mb() -> float:
    """Resident set size now, in 10^6 bytes."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Largest resident set size since the process began, or since `reset_peak`."""
    return _status_mb("VmHWM")


def reset_peak() -> None:
    """Begin a new high-water mark at the present size; OSError where the kernel does not let us."""
    (_PROC / "clear_refs").write_text(_RESET_PEAK)


def _status_mb(field: str) -> float:
    lines = (_PROC / "status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kib) * 1024 / 1e6
