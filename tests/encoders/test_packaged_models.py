"""The encoders of the models that ship with Eyepiece load, and tell tiles and slides apart."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from encoders.pipeline import Encoders, load_encoders
from encoders.slide_stages.tile_stage import ReadTiles
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
    side = demo.model.manifest.first_input.tiling.tile_px
    return np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)


def test_tiles_are_not_cropped_and_their_patches_are_averaged(demo: Encoders, tiles: np.ndarray) -> None:
    spec = demo.model.manifest.first_input.tile_encoder
    model = timm.create_model(spec.timm_model, pretrained=False, **spec.timm_args).eval()
    model.load_state_dict(load_file(demo.model.file(demo.model.manifest.first_input.tile_encoder.weights)))
    pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        patches = model.forward_features(pixels)
        expected = model.fc_norm(patches.mean(1)).numpy()

    features = demo.inputs["tiles"].tiles.encode(tiles)

    assert spec.input_px == demo.model.manifest.first_input.tiling.tile_px
    assert patches.shape[1] == (spec.input_px // 16) ** 2, "no class token"
    assert features.shape == (3, spec.feature_dim)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_another_slide_has_other_tokens(demo: Encoders) -> None:
    spec = demo.model.manifest.slide_stage
    tiling = demo.model.manifest.first_input.tiling
    coords = np.stack([np.arange(40), np.zeros(40)], axis=1).astype(np.int64) * tiling.tile_px
    plan = plan_at_target(tiling, coords)
    slides = np.random.default_rng(0).standard_normal((2, 40, spec.in_chans)).astype(np.float32)

    read = [ReadTiles({"tiles": TileFeatures(plan, features)}) for features in slides]
    tokens = [demo.stage.encode(one)["slide_tokens"].astype(np.float32) for one in read]

    assert tokens[0].shape == (spec.slide_tokens, spec.embed_dim)
    assert np.abs(tokens[0] - tokens[1]).max() > 0.01
