"""CONCH as a tile encoder: the vector that the manifest names, of every tile by itself, in any dtype."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from toy_kinds import documented_manifest, toy_of

from encoders.golden_vector import check_golden, record_golden
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.enlarge import Enlarge, enlarge
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.float8_gate import cosines
from encoders.tile_encoder.model import build_tile_encoder, empty_tile_encoder
from model_store.contracts.tile_encoder import ConchTileEncoder
from training.seeded_weights import seeded_weights

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"width": 24, "depth": 1, "num_heads": 2}
TILES = np.random.default_rng(5).integers(0, 256, (11, 40, 40, 3), dtype=np.uint8)


def spec_of(**changes: Any) -> ConchTileEncoder:
    said = {
        "kind": "conch",
        "input_px": 32,
        "enlarged_px": 48,
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
        "output": "pooled",
        "feature_dim": 16,
        "dtype": "float32",
        "batch_tiles": 4,
        "weights": "tile_encoder/model.safetensors",
    }
    return ConchTileEncoder(**{**said, **SIZES, **changes})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_tile_encoder(spec_of()).state_dict().items()}
    path = tmp_path_factory.mktemp("conch") / "model.safetensors"
    save_file(seeded_weights(shapes, np.random.default_rng(3)), path)
    return path


def features(weights: Path, **changes: Any) -> np.ndarray:
    return TileEncoder(spec_of(**changes), weights, CPU).encode(TILES)


def test_the_three_outputs_are_what_the_public_options_are(weights: Path) -> None:
    pooled, projected, unit = (features(weights, output=output) for output in ("pooled", "projected", "unit"))
    image = ConchImage(embed_dim=16, input_px=48, **SIZES)
    image.load_state_dict(load_file(weights))

    with torch.no_grad():
        published = image.eval()(torch.from_numpy(TILES[:, 4:36, 4:36].copy())).numpy()

    np.testing.assert_allclose(unit, published, atol=1e-6)
    np.testing.assert_allclose(projected, pooled @ load_file(weights)["proj_contrast"].numpy(), atol=1e-5)
    np.testing.assert_allclose(unit, projected / np.linalg.norm(projected, axis=1, keepdims=True), atol=1e-6)
    assert cosines(pooled, projected).max() < 0.9, "the projection does something"


def test_a_tile_gives_the_same_features_whatever_comes_with_it(weights: Path) -> None:
    encoder = TileEncoder(spec_of(), weights, CPU)

    np.testing.assert_allclose(encoder.encode(TILES)[9:], encoder.encode(TILES[9:]), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_near_float32(weights: Path, dtype: str) -> None:
    exact = features(weights)

    half = features(weights, dtype=dtype)

    assert half.dtype == np.float32
    assert not np.array_equal(half, exact)
    assert cosines(half, exact).min() > 0.999


def test_nothing_of_it_breaks_a_compiled_graph(weights: Path) -> None:
    model = build_tile_encoder(spec_of(), weights, CPU)
    pixels = torch.from_numpy(TILES[:4, :32, :32].copy())

    traced = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")

    with torch.inference_mode():
        assert torch.equal(traced(pixels), model(pixels))


@pytest.mark.parametrize(("size", "side"), [(32, 56), (32, 32), (48, 32)])
def test_a_module_of_one_size_enlarges_as_the_function_does(size: int, side: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(size).integers(0, 256, (2, size, size, 3), dtype=np.uint8))

    assert torch.equal(Enlarge(size, side)(pixels), enlarge(pixels, side))


def test_all_that_changes_features_is_part_of_their_identity() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"output": "unit"},
        {"enlarged_px": 64},
        {"input_px": 40},
        {"dtype": "float16"},
    ]

    assert len({repr(spec_of(**change).identity()) for change in changes}) == len(changes)
    assert spec_of(batch_tiles=9).identity() == spec_of().identity()
    assert spec_of().identity()["kind"] == "conch"


def test_a_golden_vector_is_recorded_and_found_again(tmp_path: Path) -> None:
    manifest = documented_manifest(("tile_encoder", "conch"), ("slide_stage", "none"))

    found = check_golden(record_golden(toy_of(manifest, tmp_path), "cpu"), "cpu")

    assert found is not None
    assert (found.tile_features, found.slide_tokens) == (0, 0)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads 5 does not divide the width 24"):
        spec_of(num_heads=5)
