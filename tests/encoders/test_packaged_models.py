"""The encoders of the models that ship with Eyepiece load, and tell tiles and slides apart."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from encoders.pipeline import Encoders, load_encoders
from encoders.tile_encoder.torchvision_ops import timm
from encoders.tiling.plan_tiles import plan_at_target
from encoders.types import TileFeatures
from model_store.installed import open_model
from model_store.packaged_models import PACKAGED


@pytest.fixture(scope="module")
def demo() -> Encoders:
    return load_encoders(open_model(PACKAGED, "demo"), "cpu")


@pytest.fixture(scope="module")
def tiles(demo: Encoders) -> np.ndarray:
    side = demo.tiling.tile_px
    return np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)


def test_tiles_are_not_cropped_and_their_patches_are_averaged(demo: Encoders, tiles: np.ndarray) -> None:
    spec = demo.model.manifest.tile_encoder
    model = timm.create_model(spec.timm_model, pretrained=False, **spec.timm_args).eval()
    model.load_state_dict(load_file(demo.model.tile_encoder_weights))
    pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        patches = model.forward_features(pixels)
        expected = model.fc_norm(patches.mean(1)).numpy()

    features = demo.tiles.encode(tiles)

    assert spec.input_px == demo.tiling.tile_px
    assert patches.shape[1] == (spec.input_px // 16) ** 2, "no class token"
    assert features.shape == (3, spec.feature_dim)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_another_slide_has_other_tokens(demo: Encoders) -> None:
    spec = demo.model.manifest.slide_encoder
    coords = np.stack([np.arange(40), np.zeros(40)], axis=1).astype(np.int64) * demo.tiling.tile_px
    plan = plan_at_target(demo.tiling, coords)
    slides = np.random.default_rng(0).standard_normal((2, 40, spec.in_chans)).astype(np.float32)

    tokens = [demo.slide.encode(TileFeatures(plan, features)).astype(np.float32) for features in slides]

    assert tokens[0].shape == (spec.slide_tokens, spec.embed_dim)
    assert np.abs(tokens[0] - tokens[1]).max() > 0.01
