"""The NVIDIA driver's view of this machine: GPUs, its version, and the version that a CUDA build needs.

Asks files and `nvidia-smi`; no CUDA library is loaded and no context made. Standard library only.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

_DEVICES = Path("/dev")
_VERSION_FILES = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
# Linux drivers that run everything of a major CUDA version ("minor version compatibility" of NVIDIA's release notes).
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
_QUERY_TIMEOUT_S = 30.0  # a driver that has to wake its GPUs takes seconds


def visible_gpus() -> tuple[str, ...]:
    """Their names, or numbers where no name can be had; empty where there is no GPU, or none is to be seen.

    `CUDA_VISIBLE_DEVICES` chooses some of them, or hides all, as for CUDA.
    """
    found = _ask("name") or tuple(f"NVIDIA GPU {device.name[6:]}" for device in sorted(_DEVICES.glob("nvidia[0-9]*")))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not found:
        return found
    if chosen.strip() in ("", "-1", "NoDevFiles"):
        return ()
    wanted = [name.strip() for name in chosen.split(",")]  # numbers, or identifiers of GPUs and of parts of one (MIG)
    by_number = dict(zip(map(str, range(len(found))), found, strict=True))
    return tuple(by_number.get(name, f"NVIDIA GPU {name}") for name in wanted)


def number_of(uuid: str) -> int | None:
    """Which of `visible_gpus` has that UUID; None where none of them has, or nothing tells it."""
    uuids = _ask("uuid")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = list(uuids) if chosen is None else [name.strip() for name in chosen.split(",")]
    numbered = dict(zip(map(str, range(len(uuids))), uuids, strict=True))
    found = [numbered.get(name, name) for name in names]
    return found.index(uuid) if uuid in found else None


def driver_version() -> str | None:
    """As in `580.65.06`; None when nothing tells it."""
    for file in _VERSION_FILES:
        if file.is_file() and (found := re.search(r"\b\d{3}\.\d+(\.\d+)?\b", file.read_text())):
            return found[0]
    return next(iter(_ask("driver_version")), None)


def least_driver(cuda_version: str) -> int | None:
    """The oldest driver branch for a build of that CUDA version (`13.0`); None for versions that are not known here."""
    return _LEAST_DRIVER.get(int(cuda_version.split(".")[0]))


def too_old(driver: str | None, cuda_version: str) -> str | None:
    """What is wrong with the driver, in words; None when it will do, or nothing is known."""
    least = least_driver(cuda_version)
    if driver is None or least is None or int(driver.split(".")[0]) >= least:
        return None
    return f"the NVIDIA driver is {driver} and CUDA {cuda_version} needs {least} or newer"


def _ask(field: str) -> tuple[str, ...]:
    """One line for each GPU from `nvidia-smi`; empty where it fails."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_QUERY_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(listed.stdout.splitlines()) if listed.returncode == 0 else ()
