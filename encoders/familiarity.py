"""How far a slide's tiles lie from the tissue that a model was made for.

Tile features of that tissue have a mean and a covariance, which is shrunk towards a multiple of the identity (Ledoit
and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004), so that few slides will do. A
tile's distance is its squared Mahalanobis distance, divided by the number of features: about 1 for tissue like that. A
slide's is the median of its tiles', which a fold or a smear does not move. The limit is `_BEYOND` times what 95 % of
slides stay below which the mean and covariance were not made of; a slide beyond it is unfamiliar.

`familiarity.safetensors` in an installed model's folder:
    mean float32 [D]     whitening float32 [D, D], distance = |whitening · (feature − mean)|² / D
    metadata: format_version "1", limit: the largest distance of a familiar slide, slides, tiles: what it was made of

Imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, write_digests
from model_store.installed import InstalledModel, open_model

FAMILIARITY_FILE: Final = "familiarity.safetensors"
FORMAT_VERSION: Final = "1"
# A slide of a kind that the other slides lack is as far as other tissue, and would hide that.
_USUAL, _BEYOND = 0.95, 1.25
# Every slide has its own stain, so it is slides that count, not tiles.
LEAST_SLIDES: Final = 8
_FOLDS: Final = 4
_DAMAGED: Final = (
    "The model's familiarity.safetensors is damaged or does not fit its manifest; install the model again."
)

FamiliarityVerdict = Literal["familiar", "unfamiliar", "unknown"]


@dataclass(frozen=True)
class Familiarity:
    """Of one slide: its distance over the largest of a familiar one."""

    distance: float

    @property
    def verdict(self) -> FamiliarityVerdict:
        """Whether the model was made for such tissue."""
        return "unfamiliar" if self.distance > 1 else "familiar"


@dataclass(frozen=True)
class FamiliarityStatistics:
    """What the tissue is like that a model was made for; see the module."""

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    limit: float
    slides: int
    tiles: int

    def distances(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Of tile features [N, D]: distances [N]."""
        centred = features.astype(np.float64) - self.mean.astype(np.float64)
        return np.asarray(np.square(centred @ self.whitening.T.astype(np.float64)).mean(axis=1))

    def measure(self, features: NDArray[np.floating[Any]]) -> Familiarity:
        """Of a slide's tile features [N, D]."""
        return Familiarity(round(self.middle(features) / self.limit, 4))

    def middle(self, features: NDArray[np.floating[Any]]) -> float:
        """The median distance of a slide's tiles."""
        return float(np.median(self.distances(features)))


def fit(slides: Sequence[NDArray[np.floating[Any]]]) -> FamiliarityStatistics:
    """The statistics of slides that the model was made for, each its tile features [n, D].

    Raises ModelError for too few of them.
    """
    if len(slides) < LEAST_SLIDES:
        raise ModelError(f"Statistics need at least {LEAST_SLIDES} slides; {len(slides)} have tissue.")
    seen: list[float] = []
    for fold in range(_FOLDS):
        others = [slide for number, slide in enumerate(slides) if number % _FOLDS != fold]
        mean, whitening = _moments(np.concatenate(others))
        held_out = FamiliarityStatistics(mean, whitening, 1.0, len(others), 0)
        seen += [held_out.middle(slide) for slide in slides[fold::_FOLDS]]
    everything = np.concatenate(slides)
    mean, whitening = _moments(everything)
    limit = _BEYOND * float(np.quantile(seen, _USUAL))
    return FamiliarityStatistics(mean, whitening, limit, len(slides), len(everything))


def _moments(features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean [D], and the inverse square root [D, D] of the shrunk covariance."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    count, width = centred.shape
    covariance = centred.T @ centred / count
    scale = np.trace(covariance) / width
    spread = np.square(covariance - scale * np.eye(width)).sum() / width
    # The mean over tiles of |x xᵀ − S|², without making each matrix.
    error = (np.square(np.square(centred).sum(axis=1)).mean() - np.square(covariance).sum()) / width / count
    shrinkage = 1.0 if spread == 0 else min(1.0, max(0.0, error / spread))
    shrunk = shrinkage * scale * np.eye(width) + (1 - shrinkage) * covariance
    values, vectors = np.linalg.eigh(shrunk)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12)) @ vectors.T
    return mean.astype(np.float32), whitening.astype(np.float32)


def keep_statistics(model: InstalledModel, statistics: FamiliarityStatistics) -> InstalledModel:
    """The model with these statistics beside its weights."""
    path = model.folder / FAMILIARITY_FILE
    said = {"limit": repr(statistics.limit), "slides": str(statistics.slides), "tiles": str(statistics.tiles)}
    arrays = {"mean": statistics.mean, "whitening": np.ascontiguousarray(statistics.whitening)}
    path.write_bytes(save(arrays, metadata={"format_version": FORMAT_VERSION, **said}))
    write_digests(model.folder, {**model.digests, FAMILIARITY_FILE: file_digest(path)})
    return open_model(model.folder.parent, model.manifest.name)


def read_statistics(model: InstalledModel) -> FamiliarityStatistics | None:
    """The model's statistics, or None when it has none; raises ModelError for a file that does not fit it."""
    if FAMILIARITY_FILE not in model.digests:
        return None
    try:
        with safe_open(model.folder / FAMILIARITY_FILE, framework="np") as file:
            said = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in ("mean", "whitening")}
        found = FamiliarityStatistics(
            arrays["mean"], arrays["whitening"], float(said["limit"]), int(said["slides"]), int(said["tiles"])
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(_DAMAGED) from error
    width = model.manifest.first_input.tile_encoder.feature_dim
    fits = found.mean.shape == (width,) and found.whitening.shape == (width, width)
    is_finite = all(np.isfinite(array).all() for array in arrays.values()) and math.isfinite(found.limit)
    if said.get("format_version") != FORMAT_VERSION or not fits or not is_finite or found.limit <= 0:
        raise ModelError(_DAMAGED)
    return found
