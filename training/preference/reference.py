"""What the frozen start model thinks of every pair: computed once, kept beside the stage, read again after that.

    reference-<digest>.safetensors      `log_probabilities` float32 [n, 2], of the chosen and of the rejected answer

The digest is of everything that they depend on: the start model's weights, the pairs' tokens, the slides' rows and the
precision. So a reference of other weights or other pairs is never taken for this one's.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from training.loop.stage_folder import partial_path, publish
from training.preference.tokenized_pairs import TokenizedPair, stacked_pairs

_STEP_TOKENS: Final = 6_400
_NAME: Final = "log_probabilities"


def reference_log_probabilities(
    model: nn.Module,
    pairs: Sequence[TokenizedPair],
    slide_tokens: Tensor,
    rows: Tensor,
    folder: Path,
    precision: Literal["bf16", "fp32"],
) -> Tensor:
    """float32 [n, 2] on the CPU, of the model as it is, in the pairs' order. The model's mode and device stay.

    LoRA's pairs change nothing until they are trained, so a model to which they were just added is its own reference.
    """
    digest = _digest(model, pairs, slide_tokens, rows, precision)
    path = folder / f"reference-{digest}.safetensors"
    if path.is_file():
        return load_file(path)[_NAME]
    computed = _computed(model, pairs, slide_tokens, rows, precision)
    folder.mkdir(parents=True, exist_ok=True)
    built = partial_path(folder, path.name)
    built.write_bytes(save({_NAME: computed}))
    publish(built, path)
    return computed


@torch.inference_mode()
def _computed(
    model: nn.Module, pairs: Sequence[TokenizedPair], slide_tokens: Tensor, rows: Tensor, precision: str
) -> Tensor:
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    result = torch.zeros(len(pairs), 2)
    order = np.argsort([pair.longest for pair in pairs], kind="stable")
    start = 0
    while start < len(order):
        count = max(1, _STEP_TOKENS // (2 * pairs[order[min(len(order) - 1, start + 16)]].longest))
        some = order[start : start + count]
        start += count
        shown = slide_tokens[rows[torch.from_numpy(some)]].float()
        batch = {**stacked_pairs([pairs[index] for index in some]), "slide_tokens": torch.cat([shown, shown])}
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        with _autocast(device, precision):
            summed = model(moved)[_NAME].float().cpu()
        result[torch.from_numpy(some)] = summed.reshape(2, -1).T
    model.train(was_training)
    return result


def _autocast(device: torch.device, precision: str) -> Any:
    """As the loop computes what is compared with it."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def _digest(
    model: nn.Module, pairs: Sequence[TokenizedPair], slide_tokens: Tensor, rows: Tensor, precision: str
) -> str:
    digest = hashlib.sha256(precision.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    for tensor in (slide_tokens, rows):
        digest.update(_bytes(tensor))
    for pair in pairs:
        digest.update(repr((pair.prompt, pair.chosen, pair.rejected)).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    # Through integers: numpy knows no bfloat16.
    return (
        tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        if tensor.ndim
        else repr(tensor.item()).encode()
    )
