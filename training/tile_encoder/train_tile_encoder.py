"""Teaches the tile encoder to see, as Prov-GigaPath's comes to the published model ready-trained.

Supervised by what each tile shows; the heads are left behind afterwards. First with half of each tile's patches,
which doubles the speed and costs nothing for texture, then with all of them, because the few mitoses hide in
the dropped half (both measured in a pilot).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoders.tile_encoder.torchvision_ops import PatchDropout, timm
from model_store.contracts.tile_encoder import TimmTileEncoder
from synthetic.slide_layout import REGIONS
from training.loop.run_stage import run_stage
from training.loop.settings import LoopSettings
from training.tile_encoder.tile_bank import TASKS, UNLABELLED, TileBank

# A tile shows whether mitoses are frequent by a few dark specks: the task that needs the most.
TASK_WEIGHTS = {"mitoses": 2.0}


class TileTeacher(nn.Module):
    """The tile encoder with a linear head per task and one for the regions' shares."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: TimmTileEncoder) -> None:
        super().__init__()
        self.encoder = timm.create_model(spec.timm_model, pretrained=False, **dict(spec.timm_args))
        self.heads = nn.ModuleDict({name: nn.Linear(spec.feature_dim, classes) for name, classes in TASKS.items()})
        self.regions = nn.Linear(spec.feature_dim, len(REGIONS))
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def drop_patches(self, share: float) -> None:
        """From now on hides this share of every tile's patches, others each time."""
        self.encoder.patch_drop = PatchDropout(share, num_prefix_tokens=0) if share else nn.Identity()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Float RGB [B, 3, P, P] on a scale of 0 to 1 → logits [B, classes] by task, and of the regions."""
        features = self.encoder((pixels - self.mean) / self.std)
        return {"regions": self.regions(features), **{name: head(features) for name, head in self.heads.items()}}


class TileTask:
    """Random tiles of a bank, turned, mirrored and coloured differently each time."""

    def __init__(self, bank: TileBank, batch_tiles: int, seed: int) -> None:
        self._bank = bank
        self._batch_tiles = batch_tiles
        self._seed = seed

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        """uint8 RGB [B, P, P, 3] and the labels."""
        rng = np.random.default_rng([self._seed, step, rank])
        rows = np.sort(rng.choice(len(self._bank.tiles), self._batch_tiles // ranks, replace=False))
        pixels = np.stack([_turned(self._bank.tiles[row], rng) for row in rows])
        labels = {name: torch.from_numpy(values[rows]) for name, values in self._bank.labels.items()}
        return {"pixels": torch.from_numpy(pixels), **labels}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Cross-entropy of every task, weighted, over the tiles that show it."""
        logits = model(_recoloured(batch["pixels"].permute(0, 3, 1, 2).float() / 255))
        losses = {name: _cross_entropy(logits[name], batch[name]) for name in TASKS}
        losses["regions"] = functional.cross_entropy(logits["regions"].float(), batch["regions"])
        total = torch.stack([TASK_WEIGHTS.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return {"loss": total, **losses}


def train_tile_encoder(
    teacher: TileTeacher, bank: TileBank, folder: Path, half: LoopSettings, whole: LoopSettings, batch_tiles: int
) -> None:
    """Both passes; `teacher.encoder` has the result."""
    for settings, dropped in ((half, 0.5), (whole, 0.0)):
        teacher.drop_patches(dropped)
        run_stage(teacher, TileTask(bank, batch_tiles, settings.seed), settings, folder / settings.stage)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled ones; 0 where there is none."""
    total = functional.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def _turned(tile: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    turned = np.rot90(tile, int(rng.integers(4)))
    return np.asarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def _recoloured(pixels: Tensor) -> Tensor:
    """Gamma and gain per colour channel and tile: other stains and scanners than were drawn."""
    shape = (len(pixels), 3, 1, 1)
    common = torch.empty(len(pixels), 1, 1, 1).uniform_(-0.15, 0.15)
    gamma = torch.exp(common + torch.empty(shape).uniform_(-0.12, 0.12)).to(pixels.device)
    gain = torch.empty(shape).uniform_(0.94, 1.03).to(pixels.device)
    return (pixels.clamp(min=1e-3).pow(gamma) * gain).clamp(max=1.0)
