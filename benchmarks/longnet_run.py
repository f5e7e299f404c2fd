"""One model built and run once, measured, in a process of its own; benchmarks/longnet.py starts it.

    python -m benchmarks.longnet_run '{"checkout": null, "tiles": 1000, "depth": 12, "dtype": "float32"}'

Prints one JSON object, a `Run`.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.process_counters import peak_mb, reset_peak, resident_mb
from benchmarks.published_slide_encoder import build_published, import_published
from encoders.load_weights import TORCH_DTYPES
from encoders.slide_encoder.longnet import LongNetViT
from encoders.slide_encoder.outputs import cls
from training.seeded_weights import seeded_weights

IN_CHANS, EMBED_DIM, NUM_HEADS = 1536, 768, 16
# The reference holds a table of grid² rows: 3 GB at the published 1000, which takes it 15 GB to build. It is given a
# smaller one, so that the forward pass is what is compared; a tile's row is the same in both.
REFERENCE_NGRIDS = 128
WARM_UP_TILES = 64

Forward = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Job:
    """What to run: the published code in `checkout`, or ours (None); `dtype` is that of our matrix products."""

    checkout: str | None
    tiles: int
    depth: int
    dtype: str


@dataclass(frozen=True)
class Run:
    """What it took. Memory in 10^6 bytes; `forward_mb` is the growth over what was there before the forward pass,
    `peak_mb` the whole process in it, weights and torch included; `cls` the class token, to compare results by."""

    build_s: float
    build_mb: float
    wall_s: float
    cpu_s: float
    forward_mb: float
    peak_mb: float
    cls: list[float]


def measure(job: Job) -> Run:
    """Build, set weights, warm up on a few tiles, then one forward pass."""
    make = _prepared_reference(Path(job.checkout)) if job.checkout else _make_ours
    before, started = resident_mb(), time.perf_counter()
    reset_peak()
    model, forward = make(job)
    build_s, build_mb = time.perf_counter() - started, peak_mb() - before
    _set_weights(model)
    if isinstance(model, LongNetViT):
        model.use_matmul_dtype(TORCH_DTYPES[job.dtype])
    features, coords = _slide(job.tiles)
    with torch.inference_mode():
        forward(features[:WARM_UP_TILES], coords[:WARM_UP_TILES])
        before = resident_mb()
        reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        token = forward(features, coords)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(build_s, build_mb, wall, cpu, peak_mb() - before, peak_mb(), token.float().tolist())


def _make_ours(job: Job) -> tuple[nn.Module, Forward]:
    model = LongNetViT(in_chans=IN_CHANS, embed_dim=EMBED_DIM, depth=job.depth, num_heads=NUM_HEADS).eval()
    return model, lambda features, coords: cls(model(features, coords), model.norm)


def _prepared_reference(checkout: Path) -> Callable[[Job], tuple[nn.Module, Forward]]:
    """Imports are done here, before anything is measured."""
    slide_encoder = import_published(checkout)

    def make(job: Job) -> tuple[nn.Module, Forward]:
        model = build_published(
            slide_encoder,
            in_chans=IN_CHANS,
            embed_dim=EMBED_DIM,
            depth=job.depth,
            num_heads=NUM_HEADS,
            slide_ngrids=REFERENCE_NGRIDS,
        )
        return model, lambda features, coords: model(features[None], coords[None])[0][0]

    return make


def _set_weights(model: nn.Module) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in sorted(model.state_dict().items())}
    weights = seeded_weights(shapes, np.random.default_rng(0))
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()}, strict=True)


def _slide(tiles: int) -> tuple[Tensor, Tensor]:
    """Features, and tiles of 256 px in raster order over the whole grid, then over it again."""
    features = np.random.default_rng(1).standard_normal((tiles, IN_CHANS), dtype=np.float32)
    y, x = np.divmod(np.arange(tiles) % REFERENCE_NGRIDS**2, REFERENCE_NGRIDS)
    return torch.from_numpy(features), torch.from_numpy(np.stack([x, y], axis=1) * 256.0).float()


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Job(**json.loads(sys.argv[1]))))))
