"""Which output of the slide encoder made a published feature file? All that could have are computed and compared.

Public sources do not say it; docs/published-models.md says what follows from the answer.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.device import choose_device
from encoders.device_errors import translated_device_errors
from encoders.slide_encoder.encode import SlideEncoder
from encoders.slide_encoder.outputs import POOLED_OUTPUTS
from encoders.types import TileFeatures
from model_store.contracts.slide_stage import LongnetPool
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_tensor
from model_store.installed import InstalledModel


@dataclass(frozen=True)
class OutputMatch:
    """How near an output comes to the published rows: mean cosine of the rows, mean absolute difference."""

    output: str
    cosine: float
    difference: float


def compare_outputs(
    model: InstalledModel, features: TileFeatures, published: NDArray[np.float32], device: str
) -> list[OutputMatch]:
    """Every pooled output of one slide's tile features against `published` [slide_tokens, embed_dim], nearest first."""
    where, stage = choose_device(device), model.manifest.longnet_pool()
    matches = []
    for output in POOLED_OUTPUTS:
        spec = LongnetPool.model_validate({**stage.model_dump(), "output": output})
        with translated_device_errors():
            computed = SlideEncoder(spec, model.file(stage.weights), where).encode(features).astype(np.float32)
        matches.append(
            OutputMatch(output, _mean_cosine(computed, published), float(np.abs(computed - published).mean()))
        )
    return sorted(matches, key=lambda match: match.difference)


def read_published_rows(path: Path, spec: LongnetPool) -> NDArray[np.float32]:
    """The rows of a published `.pt`: (rows, width) or (1, rows, width), zero columns on the right cut off.

    Raises ModelError when it is not one slide's rows of the encoder's width.
    """
    tensor = read_tensor(path).to(torch.float32)
    rows = np.asarray(tensor.squeeze(0).numpy() if tensor.dim() == 3 else tensor.numpy())
    if rows.ndim != 2 or rows.shape[0] != spec.slide_tokens or rows.shape[1] < spec.embed_dim:
        raise ModelError(
            f"The published features have the shape {list(tensor.shape)}; "
            f"[{spec.slide_tokens}, {spec.embed_dim}] or wider is expected."
        )
    if np.any(rows[:, spec.embed_dim :]):
        raise ModelError("The published features are wider than the slide encoder and not zero there.")
    return rows[:, : spec.embed_dim]


def _mean_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)).mean())
