"""The border to a device's own errors: a GPU that has failed or is full is told in our words, whatever was computed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import Final

import torch

from encoders.errors import DeviceLost, DeviceOutOfMemory
from model_store.errors import EyepieceError

# Only torch itself has classes for these errors. Triton's and inductor's launchers, cuBLAS and cuDNN raise a
# RuntimeError, and a full device has many names, that of the host's memory among them.
_OUT_OF_MEMORY: Final = ("out of memory", "STATUS_ALLOC_FAILED", "DefaultCPUAllocator")
_OF_A_DEVICE: Final = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]", "CUBLAS_STATUS_", "CUDNN_STATUS_")

MORE_MEMORY: Final = (
    "Lower EYEPIECE_LLM_GPU_MEMORY and raise EYEPIECE_WORKER_GPU_MEMORY, or give the worker another GPU "
    "(EYEPIECE_DEVICE)."
)


@contextmanager
def translated_device_errors() -> Iterator[None]:
    """Raises DeviceLost for an error of the device itself, DeviceOutOfMemory where only its memory did not do."""
    try:
        yield
    except RuntimeError as error:
        ours = _in_our_words(error)
        if ours is None:
            raise
        # Its frames hold all that was computed so far: memory that is wanted back before the error is forgotten.
        clear_frames(error.__traceback__)
        raise ours from error


def empty_cache(device: torch.device) -> None:
    """Gives back the memory that torch keeps for later; not to be called while the error is still handled."""
    gc.collect()  # tensors that hooks of modules left in circles
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _in_our_words(error: RuntimeError) -> EyepieceError | None:
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(name in text for name in _OUT_OF_MEMORY):
        return DeviceOutOfMemory(f"The encoders' device has too little memory free. {MORE_MEMORY}")
    if isinstance(error, torch.AcceleratorError) or any(name in text for name in _OF_A_DEVICE):
        return DeviceLost("The GPU has failed; restart the worker, and check the GPU if it fails again.")
    return None
