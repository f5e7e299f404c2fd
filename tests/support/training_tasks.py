"""A model and a task that train in a blink, for the loop's tests and the processes they kill."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from training.loop.run_stage import run_stage
from training.loop.settings import LoopSettings

STEPS = 12


def tiny_model() -> nn.Module:
    """Dropout and a buffer are in it because both are easily lost on resuming; the first layer is frozen."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 8), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    return model


def settings(**changes: object) -> LoopSettings:
    """Twelve steps with a checkpoint every five."""
    given = {"stage": "tiny", "steps": STEPS, "learning_rate": 1e-2, "warmup_steps": 2, "prefetch_workers": 0}
    given |= {"checkpoint_every": 5, "log_every": 4, "precision": "fp32"}
    return LoopSettings(**{**given, **changes})  # type: ignore[arg-type]


class SumOfInputs:
    """Regression to the sum of five normal numbers; process `rank` of `ranks` has its own part of the batch."""

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 + step)
        inputs = torch.randn(16, 5, generator=generator)[rank::ranks]
        return {"inputs": inputs, "sums": inputs.sum(1, keepdim=True)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        error = model(batch["inputs"]) - batch["sums"]
        return {"loss": error.square().mean(), "largest_error": error.abs().max()}


class Interrupted(Exception):
    """What `KilledAt` raises in place of a kill."""


class KilledAt(SumOfInputs):
    """Ends at batch `step`, as a person or an allocator does it: `signal.SIGKILL`, or an exception for None."""

    def __init__(self, step: int, kill: signal.Signals | None = None) -> None:
        self._step = step
        self._kill = kill

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        if step == self._step:
            if self._kill is None:
                raise Interrupted
            os.kill(os.getpid(), self._kill)
        return super().batch(step, rank, ranks)


if __name__ == "__main__":  # python training_tasks.py FOLDER [STEP TO BE KILLED AT]
    torch.set_num_threads(1)
    task = KilledAt(int(sys.argv[2]), signal.SIGKILL) if len(sys.argv) > 2 else SumOfInputs()
    run_stage(tiny_model(), task, settings(), Path(sys.argv[1]))
