"""The machine of a result: processor and versions, and nothing by which the machine could be found."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, object]:
    """Processor, cores that this process may use, and the kind of system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_model(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's and those of the distributions that are installed."""
    return {"python": platform.python_version()} | {
        name: found for name in packages if (found := _version(name)) is not None
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    if not _CPUINFO.exists():
        return platform.processor() or "unknown"
    lines = _CPUINFO.read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
