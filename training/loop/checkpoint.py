"""The state between two steps, on disk: weights and optimiser as safetensors, the rest as JSON. Nothing is unpickled.

There is no generator and no scheduler to save: batches, learning rate and random numbers are functions of the step.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from training.loop.stage_folder import (
    WEIGHTS_FILE,
    newest_checkpoint,
    partial_path,
    publish,
    publish_checkpoint,
    read_json,
    write_json,
)
from training.loop.trained_state import read_optimizer, read_weights, write_optimizer, write_weights

_OPTIMIZER_FILE: Final = "optimizer.safetensors"
_PROGRESS_FILE: Final = "progress.json"


@dataclass(frozen=True)
class Progress:
    """Where training stands: steps taken, and seconds spent on them over all runs."""

    step: int = 0
    seconds: float = 0.0
    processes: int = 1


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: Optimizer, progress: Progress, *, is_writer: bool
) -> None:
    """Publishes `checkpoint-<step>` and removes older ones. Every process calls it, the writer writes."""
    weights, moments = read_weights(model), read_optimizer(model, optimizer)
    if is_writer:
        built = partial_path(folder, f"checkpoint-{progress.step}")
        built.mkdir()
        _write_tensors(built / WEIGHTS_FILE, weights)
        _write_tensors(built / _OPTIMIZER_FILE, moments)
        write_json(built / _PROGRESS_FILE, asdict(progress))
        publish_checkpoint(folder, built, progress.step)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer) -> Progress:
    """Sets model and optimiser to the newest checkpoint's state; without one, leaves them and starts at step 0.

    Raises:
        CheckpointMismatch: it was made for another model.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        return Progress()
    write_weights(model, load_file(newest / WEIGHTS_FILE))
    write_optimizer(model, optimizer, load_file(newest / _OPTIMIZER_FILE))
    return Progress(**read_json(newest / _PROGRESS_FILE))


def save_trained(folder: Path, model: nn.Module, *, is_writer: bool) -> None:
    """Leaves the finished stage's weights in `folder`. Every process calls it, the writer writes."""
    weights = read_weights(model)
    if is_writer:
        built = partial_path(folder, WEIGHTS_FILE)
        _write_tensors(built, weights)
        publish(built, folder / WEIGHTS_FILE)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Sets `model` (the same parameters frozen as in training) to what the finished stage in `folder` left.

    Raises:
        CheckpointMismatch: the stage trained another model.
    """
    write_weights(model, load_file(folder / WEIGHTS_FILE))


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Not save_file: it makes its file readable by the owner alone.
    path.write_bytes(save(dict(tensors)))
