"""torch.compile for the one batch shape that is ever run, with the compiled code kept on disk."""

import logging
import os
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from encoders.device_errors import translated_device_errors
from encoders.errors import DeviceLost, DeviceOutOfMemory

log = logging.getLogger(__name__)

_CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
# Not "max-autotune": CUDA graphs spare launches, which matter at batches of 16 and less; here launches run ahead of a
# GPU that is busy for 100 ms per batch. And a graph owns its output, which the next replay overwrites, while ours is
# still being copied back.
_CUDA_MODE: Final = "max-autotune-no-cudagraphs"


def keep_compiled_code_in(folder: Path) -> None:
    """Makes `folder` hold what is compiled, so that a restart takes seconds; to be called before anything compiles.

    The folder must be the server's own: code in it is executed. An operator's TORCHINDUCTOR_CACHE_DIR wins.
    """
    if _CACHE_VARIABLE not in os.environ:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[_CACHE_VARIABLE] = str(folder.resolve())


def compile_model(model: nn.Module, example: Tensor) -> nn.Module | None:
    """The model compiled for the example's shape and device, or None and a warning where that does not work.

    The first call takes minutes for a large model on a GPU. To be called in inference mode, as the result will be.
    Raises DeviceLost and DeviceOutOfMemory: those are no faults of the compiler.
    """
    mode = _CUDA_MODE if example.is_cuda else None
    compiled: nn.Module = torch.compile(model, fullgraph=True, dynamic=False, mode=mode)  # type: ignore[assignment]
    try:
        with translated_device_errors():
            compiled(example)
    except (DeviceLost, DeviceOutOfMemory):
        torch.compiler.reset()
        raise
    except Exception:  # a compiler fails in ways of its own; without it the model is slower, not wrong
        log.warning("The tile encoder cannot be compiled and runs uncompiled, which is slower.", exc_info=True)
        torch.compiler.reset()
        return None
    return compiled
