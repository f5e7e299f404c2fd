import pytest
import torch
from torch import Tensor, nn

from encoders.slide_encoder.outputs import (
    OUTPUTS,
    SlideStates,
    all_layer_cls,
    all_layer_global_pool,
    cls,
    global_pool,
    pad_to_width,
    slide_tokens,
)

WIDTH = 8


@pytest.fixture
def norm() -> nn.LayerNorm:
    layer = nn.LayerNorm(WIDTH, eps=1e-6).requires_grad_(False)
    layer.weight.copy_(torch.linspace(0.5, 2, WIDTH))
    layer.bias.copy_(torch.linspace(-1, 1, WIDTH))
    return layer


def make_states(tiles: int) -> SlideStates:
    random = torch.Generator().manual_seed(tiles)
    states = [torch.randn(tiles + 1, WIDTH, generator=random) for _ in range(4)]
    return SlideStates(states[:3], encoder_out=states[3], keep="all")


def bin_means(tokens: Tensor, bins: int) -> Tensor:
    tiles = len(tokens)
    edges = [(i * tiles // bins, -(-(i + 1) * tiles // bins)) for i in range(bins)]
    return torch.stack([tokens[first:last].mean(dim=0) for first, last in edges])


def test_the_class_token_is_normalised_then_taken(norm: nn.LayerNorm) -> None:
    states = make_states(5)

    torch.testing.assert_close(cls(states, norm), norm(states.encoder_out[0]))


def test_the_pool_is_taken_over_tiles_alone_then_normalised(norm: nn.LayerNorm) -> None:
    states = make_states(5)

    torch.testing.assert_close(global_pool(states, norm), norm(states.encoder_out[1:].mean(dim=0)))


def test_all_layer_outputs_take_every_state_and_not_the_encoder_output(norm: nn.LayerNorm) -> None:
    states = make_states(5)

    tokens, pools = all_layer_cls(states, norm), all_layer_global_pool(states, norm)

    assert tokens.shape == pools.shape == (3, WIDTH)
    for state, token, pool in zip(states.states, tokens, pools, strict=True):
        torch.testing.assert_close(token, norm(state[0]))
        torch.testing.assert_close(pool, norm(state[1:].mean(dim=0)))


@pytest.mark.parametrize("name", ["all_layer_cls", "all_layer_global_pool"])
def test_all_layer_outputs_refuse_states_that_were_not_kept(norm: nn.LayerNorm, name: str) -> None:
    states = SlideStates([torch.zeros(3, WIDTH)], torch.zeros(3, WIDTH), keep="last")

    with pytest.raises(ValueError, match='keep="all"'):
        OUTPUTS[name](states, norm)


@pytest.mark.parametrize("tiles", [1, 3, 100, 576, 577, 2000])
def test_slide_tokens_are_means_of_overlapping_bins_in_tile_order(norm: nn.LayerNorm, tiles: int) -> None:
    states = make_states(tiles)

    pooled = slide_tokens(states, norm, source="encoder_out", apply_norm=False)

    torch.testing.assert_close(pooled, bin_means(states.encoder_out[1:], 576), atol=1e-6, rtol=0)


def test_the_four_wsi_llava_outputs_differ_in_source_and_norm(norm: nn.LayerNorm) -> None:
    states = make_states(700)
    last, out = (bin_means(tokens[1:], 576) for tokens in (states.states[-1], states.encoder_out))
    expected = {"last_state": last, "last_state_norm": norm(last), "encoder_out": out, "encoder_out_norm": norm(out)}

    for name, tokens in expected.items():
        torch.testing.assert_close(OUTPUTS[f"wsi_llava_{name}"](states, norm), tokens, atol=2e-6, rtol=0)


def test_padding_adds_zero_columns_on_the_right() -> None:
    tokens = torch.randn(5, WIDTH)

    padded = pad_to_width(tokens, 11)

    assert torch.equal(padded[:, :WIDTH], tokens)
    assert torch.equal(padded[:, WIDTH:], torch.zeros(5, 3))


def test_tokens_wider_than_the_projector_are_refused() -> None:
    with pytest.raises(ValueError, match="12 wide, more than"):
        pad_to_width(torch.zeros(5, 12), 11)
