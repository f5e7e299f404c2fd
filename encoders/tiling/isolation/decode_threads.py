"""The number of threads that decode tiles on this machine: the parent decides, the child is told."""

import os
from functools import cache
from pathlib import Path

# One GPU takes what two to eight cores decode; more would only take memory and cores from the next worker.
MAX_DECODE_THREADS = 16
_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@cache
def decode_threads_here() -> int:
    """Physical cores that this process may use, less the one that feeds the device; 1 to 16.

    A second hyperthread adds little to JPEG decoding. A container's CPU quota counts like a number of cores.
    """
    cores = min(_physical_cores(_allowed_cpus(), _CPUS), _quota_cpus(_QUOTA))
    return max(1, min(MAX_DECODE_THREADS, int(cores) - 1))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int], folder: Path) -> int:
    """Different cores among `cpus`; all of them where the platform does not say."""
    return len({_core(cpu, folder) for cpu in cpus})


def _core(cpu: int, folder: Path) -> tuple[str, ...]:
    topology = folder / f"cpu{cpu}" / "topology"
    try:
        return tuple((topology / name).read_text() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (f"cpu{cpu}",)


def _quota_cpus(file: Path) -> float:
    """CPU seconds per second that the control group grants (cgroup v2: `quota period` in µs, or `max period`)."""
    try:
        quota, period = file.read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")
