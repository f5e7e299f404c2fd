from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from encoders.errors import SlideTooLarge
from encoders.slide_encoder.encode import SlideEncoder
from encoders.slide_encoder.longnet import LongNetViT
from encoders.types import TileFeatures, TilePlan
from model_store.installed import InstalledModel

CPU = torch.device("cpu")


def encoder_of(model: InstalledModel, **changes: Any) -> SlideEncoder:
    spec = model.manifest.slide_encoder.model_copy(update=changes)
    return SlideEncoder(spec, model.slide_encoder_weights, CPU)


@pytest.fixture
def tile_features(plan: TilePlan) -> TileFeatures:
    """70 tiles of 512 level-0 pixels in raster order."""
    rows, columns = np.divmod(np.arange(70), 10)
    coords = np.stack([columns, rows], axis=1).astype(np.int64) * 512
    values = np.random.default_rng(0).standard_normal((70, 192)).astype(np.float32)
    return TileFeatures(replace(plan, width=5_120, height=3_584, coords=coords), values)


@pytest.mark.parametrize("output", ["encoder_out", "last_state"])
@pytest.mark.parametrize("norm", [True, False])
def test_tokens_are_the_pooled_tiles_without_the_class_token(
    demo_model: InstalledModel, tile_features: TileFeatures, output: str, norm: bool
) -> None:
    spec = demo_model.manifest.slide_encoder
    reference = LongNetViT(
        in_chans=spec.in_chans, embed_dim=spec.embed_dim, depth=spec.depth, num_heads=spec.num_heads
    ).eval()
    reference.load_state_dict(load_file(demo_model.slide_encoder_weights))
    with torch.inference_mode():
        states = reference(
            torch.from_numpy(tile_features.features), torch.from_numpy(tile_features.plan.coords), tile_size=512
        )
        source = states.encoder_out if output == "encoder_out" else states.states[-1]
        pooled = functional.adaptive_avg_pool1d(source[1:].T[None], spec.slide_tokens)[0].T
        expected = (reference.norm(pooled) if norm else pooled).half().numpy()

    tokens = encoder_of(demo_model, output=output, norm=norm).encode(tile_features)

    assert tokens.shape == (spec.slide_tokens, spec.embed_dim)
    assert tokens.dtype == np.float16
    np.testing.assert_allclose(tokens.astype(np.float32), expected.astype(np.float32), atol=2e-3)


def test_fewer_tiles_than_tokens_still_fill_all_of_them(
    demo_model: InstalledModel, tile_features: TileFeatures
) -> None:
    few = TileFeatures(replace(tile_features.plan, coords=tile_features.plan.coords[:3]), tile_features.features[:3])

    assert encoder_of(demo_model).encode(few).shape == (32, 96)


def test_the_grid_step_is_the_tile_at_level_0_or_the_published_tile_px(
    demo_model: InstalledModel, tile_features: TileFeatures
) -> None:
    halved = replace(tile_features.plan, coords=tile_features.plan.coords // 2, tile_px_level0=256.0)
    native = TileFeatures(halved, tile_features.features)
    level0, published = encoder_of(demo_model), encoder_of(demo_model, tile_stride_px_level="tile_px")

    # The same cells at 40× and at 20× …
    assert np.array_equal(level0.encode(tile_features), level0.encode(native))
    # … while the published code counts in tiles of 256 px whatever the slide's resolution.
    assert np.array_equal(published.encode(native), level0.encode(native))
    assert not np.array_equal(published.encode(tile_features), level0.encode(tile_features))


def test_a_fractional_tile_keeps_one_cell_per_tile(demo_model: InstalledModel, tile_features: TileFeatures) -> None:
    # 512.6 px read, so the plan's grid has a stride of 513.
    cells = tile_features.plan.coords // 512
    fractional = replace(tile_features.plan, coords=cells * 513, tile_px_level0=512.6)
    encoder = encoder_of(demo_model)

    assert np.array_equal(
        encoder.encode(TileFeatures(fractional, tile_features.features)), encoder.encode(tile_features)
    )


def test_a_tile_outside_the_position_grid_is_refused(demo_model: InstalledModel, tile_features: TileFeatures) -> None:
    far = replace(tile_features.plan, coords=tile_features.plan.coords + 512 * 1_000)

    with pytest.raises(SlideTooLarge):
        encoder_of(demo_model).encode(TileFeatures(far, tile_features.features))


def test_half_precision_stays_close(demo_model: InstalledModel, tile_features: TileFeatures) -> None:
    exact = encoder_of(demo_model).encode(tile_features).astype(np.float32)
    rounded = encoder_of(demo_model, dtype="bfloat16").encode(tile_features).astype(np.float32)

    assert np.abs(exact - rounded).max() < 0.1
