"""This CPU's abilities for a tile encoder: native bfloat16, and how many threads it may really use."""

import math
import os
from pathlib import Path
from typing import Final, Literal

import torch

_CPU_INFO: Final = Path("/proc/cpuinfo")
# The quota of control group v2, as a container sees its own: "max 100000" or "<µs per period> <period in µs>".
_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
# AVX-512 BF16, AMX (x86-64), BF16 of Armv8.6 (as Linux calls them). Without one bfloat16 is emulated, and slow.
_BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def native_cpu_dtype(cpu_info: Path = _CPU_INFO) -> Literal["bfloat16", "float32"]:
    """The faster dtype on this CPU; "float32" where the system does not say."""
    return "bfloat16" if _BFLOAT16_FLAGS & _flags(cpu_info) else "float32"


def fit_threads_to_quota(cpu_quota: Path = _CPU_QUOTA) -> None:
    """No more torch threads than the container's CPU quota pays for; never more than before.

    torch starts one per physical core of the host and does not see the quota. OMP_NUM_THREADS wins.
    """
    quota = _quota_cpus(cpu_quota)
    if quota is not None and "OMP_NUM_THREADS" not in os.environ and quota < torch.get_num_threads():
        torch.set_num_threads(quota)


def _flags(cpu_info: Path) -> set[str]:
    return {flag for key, value in _entries(cpu_info) if key in ("flags", "features") for flag in value.split()}


def _entries(cpu_info: Path) -> list[tuple[str, str]]:
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def _quota_cpus(cpu_quota: Path) -> int | None:
    try:
        allowed, period = cpu_quota.read_text(encoding="utf-8").split()
        return max(1, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):  # no control group v2, or "max"
        return None
