"""A model's golden vector: a small input and what both encoders made of it, to be made again elsewhere and later.

`models verify` does so, and every worker when it starts, with the encoders as it will use them.

`golden.safetensors` in an installed model's folder (docs/decisions/0008):
    tile_pixels     uint8   [1, tile_px, tile_px, 3]     tile_features   float32 [1, feature_dim]
    slide_features  float32 [L, feature_dim]             slide_coords    int64   [L, 2], level-0 px
    slide_tokens    float32 [slide_tokens, embed_dim]
    metadata        format_version "1", atol: the largest absolute difference that passes
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from encoders.device import choose_device
from encoders.device_errors import told_as_ours
from encoders.slide_encoder.encode import SlideEncoder
from encoders.tile_encoder.encode import TileEncoder
from encoders.tiling.plan_tiles import plan_at_target
from encoders.types import TileFeatures
from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, write_digests
from model_store.installed import InstalledModel, open_model
from model_store.manifest import Dtype, Manifest, Matmul, TilingSpec

GOLDEN_FILE: Final = "golden.safetensors"
FORMAT_VERSION: Final = "1"
# fp16: the tolerance of the publisher's own check of the tile encoder. bf16 rounds 8 times coarser; measured 3.4e-2.
ATOL: Final[dict[Dtype, float]] = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
_GRID_SIDE: Final = 6  # tiles; more than one per row, so that swapped axes show

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class GoldenDifference:
    """The largest absolute differences that were found, and what passes; None for tiles that could not be compared."""

    tile_features: float | None
    slide_tokens: float
    atol: float


@dataclass(frozen=True)
class GoldenVector:
    """What was recorded; see the module."""

    arrays: Arrays
    atol: float
    tiling: TilingSpec
    matmul: Matmul

    @property
    def tile_pixels(self) -> NDArray[np.uint8]:
        """What the tile encoder is given: [1, tile_px, tile_px, 3]."""
        return self.arrays["tile_pixels"].astype(np.uint8, copy=False)

    @property
    def slide(self) -> TileFeatures:
        """What the slide encoder is given."""
        plan = plan_at_target(self.tiling, self.arrays["slide_coords"].astype(np.int64, copy=False))
        return TileFeatures(plan, self.arrays["slide_features"].astype(np.float32, copy=False))

    def compare(self, tile_features: NDArray[np.float32], slide_tokens: NDArray[np.float16]) -> GoldenDifference:
        """Raises ModelError when an output differs by more than the tolerance.

        Products in 8 bits are another function: the tile encoder compares them with those in 16 bits when it is built.
        """
        tile = None if self.matmul == "float8" else _difference(tile_features, self.arrays["tile_features"])
        slide = _difference(slide_tokens, self.arrays["slide_tokens"])
        # Written so that NaN fails.
        if not all(found <= self.atol for found in (tile, slide) if found is not None):
            told = "" if tile is None else f"tile features differ by {tile:.2g}, "
            raise ModelError(
                f"The encoders give other numbers than recorded: {told}slide tokens by {slide:.2g}, at most "
                f"{self.atol:g} passes. Compare torch, timm and driver with the machine that recorded, or use another "
                "dtype."
            )
        return GoldenDifference(tile, slide, self.atol)


def record_golden(model: InstalledModel, device: str) -> InstalledModel:
    """Runs both encoders on a seeded input and keeps it and their output with the model.

    What is recorded is what this machine computes: do it where the model is known to be right.
    """
    tiling = model.manifest.tiling
    given = _seeded_input(tiling, model.manifest.slide_encoder.in_chans)
    atol = _atol(model.manifest)
    features, tokens = _computed(model, GoldenVector(given, atol, tiling, "dtype"), device)
    arrays = given | {"tile_features": features, "slide_tokens": tokens.astype(np.float32)}
    path = model.folder / GOLDEN_FILE
    path.write_bytes(save(arrays, metadata={"format_version": FORMAT_VERSION, "atol": str(atol)}))
    write_digests(model.folder, {**model.digests, GOLDEN_FILE: file_digest(path)})
    return open_model(model.folder.parent, model.manifest.name)


def check_golden(model: InstalledModel, device: str) -> GoldenDifference | None:
    """Loads both encoders and runs them on the recorded input; None for a model without a golden vector.

    Raises ModelError when an output differs by more than the tolerance, or the file is not of this format.
    """
    golden = read_golden(model)
    return None if golden is None else golden.compare(*_computed(model, golden, device))


def read_golden(model: InstalledModel) -> GoldenVector | None:
    """What was recorded of the model, or None; raises ModelError for a file that does not fit it.

    A tolerance that was recorded in a finer dtype than the encoders are to run in is widened to theirs.
    """
    if GOLDEN_FILE not in model.digests:
        return None
    arrays, atol = _read(model.folder / GOLDEN_FILE)
    _require_fit(arrays, model.manifest)
    manifest = model.manifest
    return GoldenVector(arrays, max(atol, _atol(manifest)), manifest.tiling, manifest.tile_encoder.matmul)


def _atol(manifest: Manifest) -> float:
    return max(ATOL[manifest.tile_encoder.dtype], ATOL[manifest.slide_encoder.dtype])


def _computed(
    model: InstalledModel, golden: GoldenVector, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    manifest, where = model.manifest, choose_device(device)
    # One tile, not a full batch: a batch of ViT-g takes minutes on a CPU.
    one_by_one = manifest.tile_encoder.model_copy(update={"batch_tiles": 1})
    with told_as_ours():
        tiles = TileEncoder(one_by_one, model.tile_encoder_weights, where)
        features = tiles.encode(golden.tile_pixels)
        del tiles
        slide = SlideEncoder(manifest.slide_encoder, model.slide_encoder_weights, where)
        return features, slide.encode(golden.slide)


def _seeded_input(tiling: TilingSpec, in_chans: int) -> Arrays:
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(_GRID_SIDE), np.arange(_GRID_SIDE))
    coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64) * tiling.tile_px
    return {
        "tile_pixels": rng.integers(0, 256, (1, tiling.tile_px, tiling.tile_px, 3), dtype=np.uint8),
        "slide_features": rng.standard_normal((len(coords), in_chans), dtype=np.float32),
        "slide_coords": coords,
    }


def _read(path: Path) -> tuple[Arrays, float]:
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if metadata.get("format_version") != FORMAT_VERSION:
            raise ModelError("The model's golden vector has another format version; record it again.")
        return arrays, float(metadata["atol"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError("The model's golden vector cannot be read; install the model again.") from error


def _require_fit(arrays: Arrays, manifest: Manifest) -> None:
    tile_px, slide = manifest.tiling.tile_px, manifest.slide_encoder
    tiles = len(arrays["slide_coords"]) if "slide_coords" in arrays else 0
    expected = {
        "tile_pixels": (1, tile_px, tile_px, 3),
        "tile_features": (1, manifest.tile_encoder.feature_dim),
        "slide_features": (tiles, slide.in_chans),
        "slide_coords": (tiles, 2),
        "slide_tokens": (slide.slide_tokens, slide.embed_dim),
    }
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise ModelError("The model's golden vector does not fit its manifest; record it again.")


def _difference(computed: NDArray[np.generic], recorded: NDArray[np.generic]) -> float:
    """The largest absolute one. Numbers of 16 bits may have been rounded to either neighbour: a step is none."""
    differences = np.abs(computed.astype(np.float64) - recorded.astype(np.float64))
    if computed.dtype == np.float16:
        steps = np.spacing(np.abs(recorded).astype(np.float16)).astype(np.float64)
        differences = np.maximum(differences - steps, 0)
    return float(differences.max())
