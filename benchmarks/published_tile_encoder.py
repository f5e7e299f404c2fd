"""One tile through the published tile encoder at full size (ViT-g, 1.13 billion parameters) with random weights.

    .venv/bin/python benchmarks/published_tile_encoder.py [float32|float16|bfloat16 …]

Prints, for each dtype, the time to load, the time for one tile and the peak memory. Each dtype runs in a process of its
own; the weights file (2.3 or 4.5 GB) lies in the system's temporary folder meanwhile.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from encoders.expected_shapes import expected_shapes
from encoders.tile_encoder.encode import TileEncoder
from model_store.manifest import Dtype, TileEncoderSpec, packaged_manifest
from model_store.write_safetensors import TORCH_DTYPES, TensorEntry, write_safetensors


def main(dtypes: list[str]) -> None:
    """Every dtype in turn."""
    print(f"{'dtype':<10} {'load s':>8} {'tile s':>8} {'peak GB':>8}", flush=True)
    for dtype in dtypes:
        subprocess.run([sys.executable, __file__, "--one", dtype], check=True)


def measure(dtype: Dtype) -> None:
    """One line of the table."""
    spec = packaged_manifest("wsi-llava").tile_encoder.model_copy(update={"dtype": dtype, "batch_tiles": 1})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_random(path, spec)
        started = time.perf_counter()
        encoder = TileEncoder(spec, path, torch.device("cpu"))
        loaded = time.perf_counter()
        encoder.warm_up()
        warm = time.perf_counter()
        tile = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
        features = encoder.encode(tile)
        done = time.perf_counter()
    assert features.shape == (1, spec.feature_dim)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{dtype:<10} {loaded - started:8.1f} {done - warm:8.1f} {peak_gb:8.1f}", flush=True)


def write_random(path: Path, spec: TileEncoderSpec) -> None:
    """Matrices of unit gain, norms near 1: the residual stream stays in the range of half precision."""
    manifest = packaged_manifest("wsi-llava").model_copy(update={"tile_encoder": spec})
    entries = [TensorEntry(name, shape) for name, shape in expected_shapes(manifest).tile_encoder.items()]
    write_safetensors(path, spec.dtype, entries, random_tensors(entries, spec.dtype))


def random_tensors(entries: list[TensorEntry], dtype: Dtype) -> Iterator[torch.Tensor]:
    """Drawn directly in the dtype: drawing them in fp32 takes longer than everything else."""
    generator = torch.Generator().manual_seed(0)
    for entry in entries:
        fan_in = entry.elements // entry.shape[0]
        bound = (3 / fan_in) ** 0.5 if len(entry.shape) > 1 else 1.0
        yield torch.empty(entry.shape, dtype=TORCH_DTYPES[dtype]).uniform_(-bound, bound, generator=generator)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(next(name for name in get_args(Dtype) if name == sys.argv[2]))
    else:
        main(sys.argv[1:] or list(get_args(Dtype)))
