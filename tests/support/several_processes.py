"""What each of several processes runs: LoRA on a toy language model, once undisturbed and once interrupted.

Started by tests/training/test_several_processes.py with the environment that `accelerate launch` sets.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from toy_language_model import TOY_LOW_RANK, OneBatch, toy_batch, toy_language_model
from training_tasks import Interrupted, settings

from training.loop.checkpoint import Progress, load_checkpoint, save_checkpoint, save_trained
from training.loop.run_stage import run_stage
from training.loop.trained_state import trained_parameters

LAST_STEP = 12


class RowOfBatch(OneBatch):
    """Each process gets one of the two conversations; the batch `interrupted_at` is an exception."""

    def __init__(self, interrupted_at: int = LAST_STEP) -> None:
        super().__init__(toy_batch())
        self._interrupted_at = interrupted_at

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        if step == self._interrupted_at:
            raise Interrupted
        return {name: tensor[rank::ranks] for name, tensor in super().batch(step, rank, ranks).items()}


def train(folder: Path) -> None:
    """Each process with the whole model."""
    run_stage(toy_language_model(TOY_LOW_RANK), RowOfBatch(), settings(), folder / "undisturbed")
    try:
        run_stage(toy_language_model(TOY_LOW_RANK), RowOfBatch(8), settings(), folder / "resumed")
    except Interrupted:
        run_stage(toy_language_model(TOY_LOW_RANK), RowOfBatch(), settings(), folder / "resumed")


def train_sharded(folder: Path) -> None:
    """Each process with its shard: by hand, because accelerate shards on accelerators only."""
    is_writer = torch.distributed.get_rank() == 0
    whole = Sharded()
    whole.take_steps(range(6))
    save_trained(folder / "undisturbed", whole.model, is_writer=is_writer)
    interrupted, resumed = Sharded(), Sharded()
    interrupted.take_steps(range(3))
    save_checkpoint(folder / "resumed", interrupted.model, interrupted.optimizer, Progress(step=3), is_writer=is_writer)
    torch.distributed.barrier()
    progress = load_checkpoint(folder / "resumed", resumed.model, resumed.optimizer)
    resumed.take_steps(range(progress.step, 6))
    save_trained(folder / "resumed", resumed.model, is_writer=is_writer)


class Sharded:
    def __init__(self) -> None:
        self.model = toy_language_model(TOY_LOW_RANK)
        mesh = init_device_mesh("cpu", (2,))
        for layer in self.model.llama.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        trained = dict(trained_parameters(self.model)).values()
        assert all(isinstance(parameter, DTensor) for parameter in trained)
        self.optimizer = AdamW(trained, lr=1e-2, fused=True)

    def take_steps(self, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            self.model(toy_batch())["answers"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in ("copied", "sharded"):
        for kind in ("undisturbed", "resumed"):
            Path(sys.argv[1], name, kind).mkdir(parents=True, exist_ok=True)
    train(Path(sys.argv[1], "copied"))
    train_sharded(Path(sys.argv[1], "sharded"))
    torch.distributed.destroy_process_group()
