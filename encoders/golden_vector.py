"""A model's golden vector: a small input and what its encoders made of it, to be made again elsewhere and later.

`models verify` does so, and every worker when it starts, with the encoders as it will use them.

`golden.safetensors` in an installed model's folder (docs/decisions/0008), of a model with one input:
    tile_pixels     uint8   [1, tile_px, tile_px, 3]     tile_features   float32 [1, feature_dim]
    slide_features  float32 [L, feature_dim]             slide_coords    int64   [L, 2], level-0 px
    slide_tokens    float32 [rows, row_width]
    metadata        format_version "1", atol: the largest absolute difference that passes

What the slide stage is given and what it makes are its own: the second line is of those over tile features, and every
tensor that it makes is compared. With several inputs the first four names stand behind `<input>.`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from encoders.device import choose_device
from encoders.device_errors import translated_device_errors
from encoders.slide_stages.kinds import load_slide_stage
from encoders.slide_stages.slide_stage import SlideStage, Tensors
from encoders.slide_stages.tile_input import load_tile_encoders
from model_store.contracts.fields import Dtype
from model_store.contracts.tile_encoder import InputSpec
from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, write_digests
from model_store.installed import InstalledModel, open_model
from model_store.manifest import Manifest

GOLDEN_FILE: Final = "golden.safetensors"
FORMAT_VERSION: Final = "1"
# fp16: the tolerance of the publisher's own check of the tile encoder. bf16 rounds 8 times coarser; measured 3.4e-2.
ATOL: Final[dict[Dtype, float]] = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
_DOES_NOT_FIT: Final = "The model's golden vector does not fit its manifest; record it again."

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
    inputs: Mapping[str, InputSpec]

    def tile_pixels(self, name: str) -> NDArray[np.uint8]:
        """What the tile encoder of an input is given: [1, tile_px, tile_px, 3]."""
        return self.arrays[_of(name, "tile_pixels", self.inputs)].astype(np.uint8, copy=False)

    def output_of(self, stage: SlideStage[Any]) -> Tensors:
        """What the slide stage makes of its part; raises ModelError when that is not such."""
        try:
            return stage.golden_output(self.arrays)
        except (KeyError, ValueError) as error:
            raise ModelError(_DOES_NOT_FIT) from error

    def compare(self, tile_features: Mapping[str, NDArray[np.float32]], tensors: Tensors) -> GoldenDifference:
        """Raises ModelError when an output differs by more than the tolerance.

        Products in 8 bits are another function: the tile encoder compares them with those in 16 bits when it is built.
        """
        tiles = [
            _difference(tile_features[name], self.arrays[_of(name, "tile_features", self.inputs)])
            for name, given in self.inputs.items()
            if given.tile_encoder.matmul != "float8"
        ]
        tile = max(tiles, default=None)
        if any(name not in self.arrays or self.arrays[name].shape != it.shape for name, it in tensors.items()):
            raise ModelError(_DOES_NOT_FIT)
        slide = max(_difference(tensor, self.arrays[name]) for name, tensor in tensors.items())
        # Written so that NaN fails.
        if not all(found <= self.atol for found in (*tiles, slide)):
            told = "" if tile is None else f"tile features differ by {tile:.2g}, "
            raise ModelError(
                f"The encoders give other numbers than recorded: {told}slide tokens by {slide:.2g}, at most "
                f"{self.atol:g} passes. Compare torch, timm and driver with the machine that recorded, or use another "
                "dtype."
            )
        return GoldenDifference(tile, slide, self.atol)


def record_golden(model: InstalledModel, device: str) -> InstalledModel:
    """Runs the encoders on a seeded input and keeps it and their output with the model.

    What is recorded is what this machine computes: do it where the model is known to be right.
    """
    manifest, rng = model.manifest, np.random.default_rng(0)
    given = _seeded_pixels(manifest.inputs, rng)
    loaded = _Loaded(model, device)
    given |= loaded.stage.golden_input(rng)
    features, tensors = loaded.computed(GoldenVector(given, 0.0, manifest.inputs))
    atol = _atol(manifest)
    arrays = given | {_of(name, "tile_features", manifest.inputs): rows for name, rows in features.items()}
    arrays |= {name: _recorded(tensor) for name, tensor in tensors.items()}
    path = model.folder / GOLDEN_FILE
    path.write_bytes(save(arrays, metadata={"format_version": FORMAT_VERSION, "atol": str(atol)}))
    write_digests(model.folder, {**model.digests, GOLDEN_FILE: file_digest(path)})
    return open_model(model.folder.parent, manifest.name)


def check_golden(model: InstalledModel, device: str) -> GoldenDifference | None:
    """Loads the encoders and runs them on the recorded input; None for a model without a golden vector.

    Raises ModelError when an output differs by more than the tolerance, or the file is not of this format.
    """
    golden = read_golden(model)
    return None if golden is None else golden.compare(*_Loaded(model, device).computed(golden))


def read_golden(model: InstalledModel) -> GoldenVector | None:
    """What was recorded of the model, or None; raises ModelError for a file that does not fit it.

    A tolerance that was recorded in a finer dtype than the encoders are to run in is widened to theirs.
    """
    if GOLDEN_FILE not in model.digests:
        return None
    arrays, atol = _read(model.folder / GOLDEN_FILE)
    _require_fit(arrays, model.manifest.inputs)
    return GoldenVector(arrays, max(atol, _atol(model.manifest)), model.manifest.inputs)


def _atol(manifest: Manifest) -> float:
    tiles = [ATOL[given.tile_encoder.dtype] for given in manifest.inputs.values()]
    return max([*tiles, ATOL[manifest.slide_stage.computes_in()]])


class _Loaded:
    """The encoders, one tile at a time: a batch of ViT-g takes minutes on a CPU."""

    def __init__(self, model: InstalledModel, device: str) -> None:
        self._one_by_one = replace(model, manifest=model.manifest.with_inputs(tile_encoder={"batch_tiles": 1}))
        self._where = choose_device(device)
        with translated_device_errors():
            self.stage = load_slide_stage(self._one_by_one, self._where)

    def computed(self, golden: GoldenVector) -> tuple[dict[str, NDArray[np.float32]], Tensors]:
        with translated_device_errors():
            tiles = load_tile_encoders(self._one_by_one, self._where)
            features = {name: encoder.encode(golden.tile_pixels(name)) for name, encoder in tiles.items()}
            del tiles
            return features, golden.output_of(self.stage)


def _seeded_pixels(inputs: Mapping[str, InputSpec], rng: np.random.Generator) -> Arrays:
    return {
        _of(name, "tile_pixels", inputs): rng.integers(
            0, 256, (1, given.tiling.tile_px, given.tiling.tile_px, 3), dtype=np.uint8
        )
        for name, given in inputs.items()
    }


def _of(name: str, array: str, inputs: Mapping[str, InputSpec]) -> str:
    return array if len(inputs) == 1 else f"{name}.{array}"


def _recorded(tensor: NDArray[np.generic]) -> NDArray[np.generic]:
    return tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor


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


def _require_fit(arrays: Arrays, inputs: Mapping[str, InputSpec]) -> None:
    """Of the tile encoders; the slide stage looks at what is its own when it is given it."""
    for name, given in inputs.items():
        side, width = given.tiling.tile_px, given.tile_encoder.feature_dim
        pixels, features = (arrays.get(_of(name, array, inputs)) for array in ("tile_pixels", "tile_features"))
        if pixels is None or pixels.shape != (1, side, side, 3) or features is None or features.shape != (1, width):
            raise ModelError(_DOES_NOT_FIT)


def _difference(computed: NDArray[np.generic], recorded: NDArray[np.generic]) -> float:
    """The largest absolute one. Numbers of 16 bits may have been rounded to either neighbour: a step is none."""
    differences = np.abs(computed.astype(np.float64) - recorded.astype(np.float64))
    if computed.dtype == np.float16:
        steps = np.spacing(np.abs(recorded).astype(np.float16)).astype(np.float64)
        differences = np.maximum(differences - steps, 0)
    return float(differences.max())
