from typing import Any

import pytest
import torch
from small_tile_encoder import seeded_model, spec_of
from torch import nn

from encoders.tile_encoder.class_token_block import ClassTokenBlock, read_class_token_only
from encoders.tile_encoder.torchvision_ops import timm

GIANT = "vit_giant_patch14_dinov2"
TINY = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
TOKEN: dict[str, Any] = SMALL | {"global_pool": "token"}


def model_of(name: str, arguments: dict[str, Any]) -> nn.Module:
    return seeded_model(spec_of(timm_model=name, timm_args=arguments | {"num_classes": 0}))


@torch.inference_mode()
def assert_same_features(model: nn.Module, replaced: bool, side_px: int = 32) -> None:
    tiles = torch.randn(3, 3, side_px, side_px, generator=torch.Generator().manual_seed(1))
    expected = model(tiles)

    assert read_class_token_only(model) == replaced
    features = model(tiles)

    assert expected.std() > 0.1
    assert (features - expected).abs().max() <= (1e-6 if replaced else 0) * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(GIANT, TOKEN | {"init_values": 0.1}, id="SwiGLU and LayerScale"),
        pytest.param("vit_giant_patch14_reg4_dinov2", TOKEN, id="registers"),
        pytest.param(GIANT, TOKEN | {"reg_tokens": 8, "no_embed_class": True, "dynamic_img_size": True}, id="UNI2-h"),
        pytest.param(TINY, TOKEN, id="MLP"),
        pytest.param(TINY, TOKEN | {"qkv_bias": False}, id="no bias"),
        pytest.param(TINY, TOKEN | {"qk_norm": True}, id="normed queries and keys"),
        pytest.param(TINY, TOKEN | {"scale_attn_norm": True, "scale_mlp_norm": True}, id="inner norms"),
        pytest.param(TINY, TOKEN | {"depth": 1}, id="one block"),
    ],
)
def test_the_last_block_is_computed_for_the_class_token_alone(name: str, arguments: dict[str, Any]) -> None:
    model = model_of(name, arguments)
    seen: list[torch.Size] = []

    assert_same_features(model, replaced=True)
    blocks: Any = model.blocks
    assert isinstance(blocks[-1], ClassTokenBlock)
    blocks[-1].block.mlp.register_forward_hook(lambda _, tokens, __: seen.append(tokens[0].shape))
    with torch.inference_mode():
        model(torch.zeros(3, 3, 32, 32))

    assert seen == [(3, 1, 48)], "the saving is real"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(TINY, SMALL | {"global_pool": "avg", "class_token": False}, id="the demo model"),
        pytest.param(TINY, SMALL | {"global_pool": "avg"}, id="average beside a class token"),
        pytest.param(TINY, SMALL | {"global_pool": "map"}, id="pooled by attention"),
        pytest.param(TINY, SMALL | {"global_pool": ""}, id="all tokens are read"),
        pytest.param("deit_tiny_distilled_patch16_224", SMALL, id="two tokens are read"),
        pytest.param("vit_small_patch16_36x1_224", SMALL | {"init_values": 0.1, "block_fn": None}, id="other blocks"),
    ],
)
def test_other_models_keep_their_own_forward_pass(name: str, arguments: dict[str, Any]) -> None:
    if "block_fn" in arguments:
        from timm.models.vision_transformer import ParallelScalingBlock

        arguments = arguments | {"block_fn": ParallelScalingBlock}

    assert_same_features(model_of(name, arguments), replaced=False)


def test_a_block_with_a_part_that_we_do_not_know_is_left_alone() -> None:
    class Mixing(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens - tokens.mean(1, keepdim=True)

    model = model_of(TINY, TOKEN)
    blocks: Any = model.blocks
    blocks[-1].norm2 = Mixing()

    assert_same_features(model, replaced=False)


def test_a_convolutional_model_is_left_alone() -> None:
    torch.manual_seed(0)
    assert_same_features(timm.create_model("convnext_atto", num_classes=0).eval(), replaced=False, side_px=64)
