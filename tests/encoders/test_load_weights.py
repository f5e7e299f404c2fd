"""Files hold fp16 or fp32; what computes is the manifest's dtype, and the same numbers give the same output."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.slide_encoder.encode import SlideEncoder
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.model import build_tile_encoder
from encoders.tiling.plan_tiles import plan_at_target
from encoders.types import TileFeatures
from model_store.contracts.fields import Dtype
from model_store.installed import InstalledModel

CPU = torch.device("cpu")


def stored_as(dtype: torch.dtype, weights: Path, path: Path) -> Path:
    """The same numbers in a file of another dtype."""
    save_file({name: tensor.to(dtype) for name, tensor in load_file(weights).items()}, path)
    return path


@pytest.mark.parametrize(
    ("named", "dtype"), [("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_the_tile_encoder_has_the_manifests_dtype_whatever_the_file_holds(
    demo_model: InstalledModel, tmp_path: Path, stored: torch.dtype, named: Dtype, dtype: torch.dtype
) -> None:
    spec = demo_model.manifest.first_input.tile_encoder.model_copy(update={"dtype": named})
    weights = stored_as(
        stored, demo_model.file(demo_model.manifest.first_input.tile_encoder.weights), tmp_path / "w.safetensors"
    )

    model = build_tile_encoder(spec, weights, CPU)

    assert {tensor.dtype for tensor in [*model.parameters(), *model.buffers()]} == {dtype}


def test_both_encoders_compute_in_fp32_from_fp16_files(demo_model: InstalledModel, tmp_path: Path) -> None:
    manifest, rng = demo_model.manifest, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    plan = plan_at_target(manifest.first_input.tiling, np.array([[0, 0], [256, 0]], dtype=np.int64))
    tiles = stored_as(
        torch.float32,
        demo_model.file(demo_model.manifest.first_input.tile_encoder.weights),
        tmp_path / "tiles.safetensors",
    )
    slide = stored_as(
        torch.float32, demo_model.file(demo_model.manifest.slide_stage.weights), tmp_path / "slide.safetensors"
    )

    features = TileEncoder(
        manifest.first_input.tile_encoder, demo_model.file(demo_model.manifest.first_input.tile_encoder.weights), CPU
    ).encode(pixels)
    tokens = SlideEncoder(manifest.slide_stage, demo_model.file(demo_model.manifest.slide_stage.weights), CPU).encode(
        TileFeatures(plan, features)
    )

    assert {
        tensor.dtype
        for tensor in load_file(demo_model.file(demo_model.manifest.first_input.tile_encoder.weights)).values()
    } == {torch.float16}
    assert not np.array_equal(features, features.astype(np.float16)), "fp16 did not compute this"
    assert np.array_equal(features, TileEncoder(manifest.first_input.tile_encoder, tiles, CPU).encode(pixels))
    expected = SlideEncoder(manifest.slide_stage, slide, CPU).encode(TileFeatures(plan, features))
    assert np.array_equal(tokens, expected)
