"""GPUs as the commands see them: whether what is installed can use them. Asked before anything is started.

Each answer is two sentences: what is wrong, then what to do. The question costs seconds where a GPU is to be seen, and
nothing elsewhere: torch is imported in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

from encoders.nvidia_driver import driver_version, too_old, visible_gpus
from server.commands.environments import MAKE_ENVIRONMENTS, VllmEnvironment

_PROBE_TIMEOUT_S = 120.0
_IS_AVAILABLE = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 2)"


def unusable_by_encoders(device: str) -> str | None:
    """Why a worker would refuse to start on that EYEPIECE_DEVICE, or one of several; None when none would."""
    for name in (name.strip() for name in device.split(",")):
        if name.startswith("cpu") or (name == "auto" and not visible_gpus()):
            continue
        code, printed = _run(Path(sys.executable), "-m", "encoders.device", name)
        if code != 0:
            return printed.strip() or f"The encoders' torch does not start. To repair it, {MAKE_ENVIRONMENTS}."
    return None


def unusable_by_vllm(found: VllmEnvironment, device: str) -> str | None:
    """Why vLLM would fail, or compute on the CPU beside a GPU, and what to do; None when all is well.

    A CPU build beside a GPU is meant where the encoders' device is named; `auto` means the GPU.
    """
    gpus = visible_gpus()
    if found.is_cpu_build:
        if not gpus or device != "auto":
            return None
        return (
            f"{gpus[0]} cannot be used by a CPU build of vLLM. Install the CUDA builds, or take an image of them, or "
            "set EYEPIECE_DEVICE=cpu to compute without it."
        )
    old = too_old(driver_version(), found.cuda_version) if found.cuda_version else None
    # Only torch knows for certain: a driver may be helped by NVIDIA's compatibility package.
    if (gpus and not old) or _run(found.python, "-c", _IS_AVAILABLE)[0] != 2:
        return None
    seen = old or "no NVIDIA GPU is to be seen"
    return (
        f"A CUDA build of vLLM cannot run here: {seen}. Update the driver or hand the GPU in until `nvidia-smi` works, "
        "or install the CPU builds (`make environments BUILDS=cpu`)."
    )


def _run(python: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output; a process that does not end counts as failed without a word."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        ran = subprocess.run(
            [python, *arguments], stdout=subprocess.PIPE, text=True, check=False, timeout=_PROBE_TIMEOUT_S,
            env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return 1, ""
    return ran.returncode, ran.stdout
