"""Puts a safetensors file into a module, strictly: every tensor there, none left over, every shape right."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from model_store.errors import ModelError

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_weights(module: nn.Module, weights: Path, part: str) -> None:
    """Replaces the module's parameters (which may be on the meta device) by the file's.

    Raises ModelError naming the part ("tile encoder") and the tensors that do not fit.
    """
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The weights of the {part} cannot be read; install the model again.") from error
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(f"The weights do not fit the {part} of the manifest: {error}") from error
    left = [name for name, tensor in [*module.named_parameters(), *module.named_buffers()] if tensor.is_meta]
    if left:
        raise ModelError(f"The {part} computes {left[0]!r} when it is built; such models are not supported yet.")
