"""Trains one stage: the same command on a CPU, on one GPU, or on many under `accelerate launch`.

It knows neither slides nor words: a `StageTask` gives batches and the loss. A run that was killed goes on from its
newest checkpoint and ends in the same bits, because whatever is random is a function of seed, step and process.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env, set_seed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from encoders.device import choose_device
from model_store.errors import ModelError
from training.errors import SettingsChanged, TrainingDiverged, TrainingError
from training.loop.batches_ahead import batches_ahead
from training.loop.checkpoint import Progress, load_checkpoint, load_trained, save_checkpoint, save_trained
from training.loop.optimizer import adamw
from training.loop.progress import ProgressReport
from training.loop.settings import LoopSettings, learning_rate
from training.loop.stage_folder import is_done, require_same_settings, write_done, write_settings

Batch = Mapping[str, Tensor]


class StageTask(Protocol):
    """What one stage brings to the loop."""

    def batch(self, step: int, rank: int, ranks: int) -> Batch:
        """Process `rank`'s share of batch `step`, on the CPU: a pure function, called in another process.

        With `accumulate` above 1 every optimiser step takes that many batches, so `step` counts further than steps.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Scalars: `loss`, a mean over the batch, and whatever else is to be logged.

        It calls `model(...)`, never a part of the model: wrappers for several processes hang on that call.
        """
        ...


def run_stage(model: nn.Module, task: StageTask, settings: LoopSettings, folder: Path) -> None:
    """Trains `model` in place, or goes on where a killed run stopped, or loads what a finished run left.

    Afterwards `folder` has `weights.safetensors` (see `load_trained`) and `done.json`, and `model` the same weights;
    under FSDP each process has its shard only, so exporters build a model of their own and load the file.

    Raises:
        SettingsChanged: `folder` was made with other settings, or the checkpoint by another number of processes.
        CheckpointMismatch: `folder` was made with another model.
        TrainingDiverged: the loss is not finite; the checkpoint before stays.
    """
    require_same_settings(folder, settings)
    if is_done(folder):
        load_trained(model, folder)
        return
    with _accelerator(settings) as accelerator:
        run = _prepare(accelerator, model, task, settings, folder)
        _train(run, _start(run))
        # The wrapper that autocast put around `forward` is of no use to whoever exports the model.
        accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)


@dataclass(frozen=True)
class _Run:
    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    task: StageTask
    settings: LoopSettings
    folder: Path

    @property
    def bare_model(self) -> nn.Module:
        """Without the wrapper of several processes: its parameters have the names of files."""
        bare: nn.Module = self.accelerator.unwrap_model(self.model)
        return bare

    @property
    def bare_optimizer(self) -> Optimizer:
        """torch's own, whose state is by parameter."""
        bare: Optimizer = self.optimizer.optimizer
        return bare


@contextmanager
def _accelerator(settings: LoopSettings) -> Iterator[Accelerator]:
    # The precision is kept for the life of the process; a second stage in it may want another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="no" if settings.precision == "fp32" else "bf16")
    if accelerator.device.type == "cpu" and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        _refuse_idle_gpu()
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise TrainingError("FSDP of version 1 cannot be checkpointed here: launch with `--fsdp_version 2`.")
    try:
        yield accelerator
    finally:
        accelerator.free_memory()


def _refuse_idle_gpu() -> None:
    """A GPU that is here and cannot be used would cost days on the CPU without a word."""
    try:
        choose_device(os.environ.get("EYEPIECE_DEVICE", "auto"))
    except ModelError as error:
        raise TrainingError(error.detail) from None


def _prepare(accelerator: Accelerator, model: nn.Module, task: StageTask, settings: LoopSettings, folder: Path) -> _Run:
    prepared, optimizer = accelerator.prepare(model, adamw(model, settings))
    return _Run(accelerator, prepared.train(), optimizer, task, settings, folder)


def _start(run: _Run) -> Progress:
    progress = load_checkpoint(run.folder, run.bare_model, run.bare_optimizer)
    processes = run.accelerator.num_processes
    if progress.step and progress.processes != processes:
        raise SettingsChanged(
            f"{run.folder} was begun by {progress.processes} processes and this is {processes}: batches would differ. "
            "Launch as many again, or remove that folder to train anew."
        )
    if run.accelerator.is_main_process:
        write_settings(run.folder, run.settings)
    return replace(progress, processes=processes)


def _train(run: _Run, progress: Progress) -> None:
    started = time.monotonic() - progress.seconds
    loss = torch.tensor(float("nan"))
    with _report(run, progress.step) as report:
        for step, loss in _steps(run, progress.step, report):
            if step % run.settings.checkpoint_every == 0 and step < run.settings.steps:
                _require_finite(run, step, loss)
                _save(run, replace(progress, step=step, seconds=time.monotonic() - started))
    _finish(run, time.monotonic() - started, _require_finite(run, run.settings.steps, loss))


def _steps(run: _Run, first_step: int, report: ProgressReport) -> Iterator[tuple[int, Tensor]]:
    """Trains step by step; yields the number of steps taken and the loss of the last."""
    batches = _batches(run, first_step)
    window: list[Batch] = []
    for step in range(first_step, run.settings.steps):
        window.append(_step(run, step, batches))
        loss, taken = window[-1]["loss"], step + 1
        report.advance(taken)
        if taken % run.settings.log_every == 0 or taken == run.settings.steps:
            report.log(taken, {**_means(run, window), "rate": learning_rate(run.settings, step)})
            window.clear()
        yield taken, loss


def _step(run: _Run, step: int, batches: Iterator[Batch]) -> Batch:
    """One optimiser step; what the task logs, as means over its batches, and the norm of the gradient."""
    settings = run.settings
    _seed(settings.seed, step, run.accelerator.process_index)
    values = [
        _backward(run, next(batches), is_last=part == settings.accumulate - 1) for part in range(settings.accumulate)
    ]
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), settings.clip_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(settings, step) * group["factor"]
    run.optimizer.step()
    run.optimizer.zero_grad()
    means = {name: torch.stack([value[name] for value in values]).mean() for name in values[0]}
    return {**means, "gradient_norm": norm.full_tensor() if isinstance(norm, DTensor) else norm}


def _backward(run: _Run, batch: Batch, *, is_last: bool) -> Batch:
    moved = {name: tensor.to(run.accelerator.device, non_blocking=True) for name, tensor in batch.items()}
    with nullcontext() if is_last else run.accelerator.no_sync(run.model):
        with run.accelerator.autocast():
            values = run.task.loss(run.model, moved)
        run.accelerator.backward(values["loss"] / run.settings.accumulate)
    return {name: value.detach().float() for name, value in values.items()}


def _seed(seed: int, step: int, rank: int) -> None:
    """Makes dropout and the like a function of the step, so that no generator's state need be kept."""
    set_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _batches(run: _Run, first_step: int) -> Iterator[Batch]:
    rank, ranks = run.accelerator.process_index, run.accelerator.num_processes
    indices = range(first_step * run.settings.accumulate, run.settings.steps * run.settings.accumulate)
    make = partial(run.task.batch, rank=rank, ranks=ranks)
    on_cuda = run.accelerator.device.type == "cuda"
    return batches_ahead(make, indices, run.settings.prefetch_workers, pin_memory=on_cuda)


def _report(run: _Run, first_step: int) -> ProgressReport:
    is_shown = run.accelerator.is_main_process
    return ProgressReport(run.settings, run.folder / "logs", first_step, is_shown=is_shown)


def _means(run: _Run, window: Sequence[Batch]) -> dict[str, float]:
    """Over the steps of the window and over processes."""
    means = torch.stack([torch.stack([values[name] for values in window]).mean() for name in window[0]])
    over_all = run.accelerator.reduce(means, reduction="mean")
    return dict(zip(window[0], over_all.tolist(), strict=True))


def _require_finite(run: _Run, step: int, loss: Tensor) -> float:
    value = float(run.accelerator.reduce(loss, reduction="mean"))
    if not isfinite(value):
        raise TrainingDiverged(
            f"{run.settings.stage}: the loss is {value} at step {step}. Lower the learning rate or lengthen the "
            f"warm-up, remove {run.folder} and start again."
        )
    return value


def _save(run: _Run, progress: Progress) -> None:
    is_writer = run.accelerator.is_main_process
    save_checkpoint(run.folder, run.bare_model, run.bare_optimizer, progress, is_writer=is_writer)


def _finish(run: _Run, seconds: float, loss: float) -> None:
    is_writer = run.accelerator.is_main_process
    save_trained(run.folder, run.bare_model, is_writer=is_writer)
    if is_writer:
        write_done(run.folder, _record(run, seconds, loss))
    run.accelerator.wait_for_everyone()


def _record(run: _Run, seconds: float, loss: float) -> dict[str, Any]:
    return {
        "stage": run.settings.stage,
        "steps": run.settings.steps,
        "seconds": round(seconds, 1),
        "seed": run.settings.seed,
        "final_loss": loss,
        "torch": torch.__version__,
        "accelerate": version("accelerate"),
        "device": _device_name(run.accelerator.device),
        "processes": run.accelerator.num_processes,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
