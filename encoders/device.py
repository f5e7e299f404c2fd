"""The device that computes. A GPU that is there and cannot be used is a reason to stop, not to take the CPU instead.

`python -m encoders.device auto` says what would be taken, or why nothing is (exit code 2).
"""

import sys

import torch

from encoders.nvidia_driver import driver_version, too_old, visible_gpus
from encoders.one_gpu import see_one_gpu
from model_store.errors import ModelError


def choose_device(device: str) -> torch.device:
    """The named device; "auto" is the first CUDA device, or the CPU of a machine that shows no NVIDIA GPU.

    Raises:
        ModelError: it is not there, or there is a GPU that this torch cannot use; the text says why and what to do.
    """
    if torch.cuda.is_available():
        return _named("cuda" if device == "auto" else device)
    gpus = visible_gpus()
    if gpus and (device == "auto" or device.startswith("cuda")):
        raise ModelError(f"{gpus[0]} {_why_unusable()}, or set EYEPIECE_DEVICE=cpu to compute without it.")
    if device.startswith("cuda"):
        raise ModelError("This machine or this torch has no CUDA device; set EYEPIECE_DEVICE to cpu or auto.")
    return _named("cpu" if device == "auto" else device)


def _named(device: str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ModelError(
            f"{device!r} is no device. Set EYEPIECE_DEVICE to auto, cpu, cuda, cuda:1 …, or a UUID of `nvidia-smi -L`."
        ) from error


def _why_unusable() -> str:
    """Of a GPU that is here: why torch cannot use it, a full stop, what to do about it."""
    if torch.version.cuda is None:
        return "cannot be used by a CPU build of torch. Install the CUDA builds, or take an image of them"
    if old := too_old(driver_version(), torch.version.cuda):
        return f"cannot be used: {old}. Update the driver of the host"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
    else:
        reason = "torch does not say why"
    return f"cannot be used: {reason}. Make `nvidia-smi` work here, in a container with its GPUs handed in"


def limit_memory(device: torch.device, share: float) -> None:
    """Keeps this process to a share of the device's memory, where the rest belongs to another one; 0 = no limit.

    Its CUDA context, about half a gigabyte, comes on top.

    Raises:
        ModelError: others hold so much already that the share cannot be had.
    """
    if device.type != "cuda" or not share:
        return
    index = device.index or 0  # "cuda" alone is refused where a limit is set
    free, total = torch.cuda.mem_get_info(index)
    if free < share * total:
        raise ModelError(
            f"The worker may take {share * total / 1e9:.1f} GB of the GPU's {total / 1e9:.1f} GB and only "
            f"{free / 1e9:.1f} GB are free. See with `nvidia-smi` what holds the rest, or lower "
            "EYEPIECE_WORKER_GPU_MEMORY."
        )
    torch.cuda.set_per_process_memory_fraction(share, index)


def main() -> int:
    """Prints the device, or the reason; exit code 0 or 2."""
    try:
        print(choose_device(see_one_gpu(sys.argv[1])))
    except ModelError as error:
        print(error.detail)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
