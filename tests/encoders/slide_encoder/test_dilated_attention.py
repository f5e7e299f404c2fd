"""Dilated attention against a slow one written from its description: loops, and padding as explicit zeros."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from encoders.slide_encoder import dilated_attention as module
from encoders.slide_encoder.dilated_attention import (
    Branch,
    buffer_rows,
    dilated_attention,
    head_groups,
    make_branches,
)

ALIGNED = (Branch(8, 1), Branch(16, 2), Branch(24, 4), Branch(48, 8), Branch(64, 16))
MISALIGNED = (Branch(8, 1), Branch(11, 2), Branch(18, 4), Branch(27, 8), Branch(20, 16))
# Segments shorter than the ratio: slots of padding alone, whose log-sum-exp of 0 means "not covered".
SINGLE_SLOT = (Branch(8, 1), Branch(3, 4), Branch(5, 16))


def random_qkv(tokens: int, heads: int, channels: int = 4, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, heads, channels, generator=random) + 0.5 for _ in range(3)]


def attend(qkv: list[Tensor], branches: tuple[Branch, ...]) -> Tensor:
    tokens = len(qkv[0])
    padding = buffer_rows(tokens, branches) - tokens
    return dilated_attention(*(functional.pad(x, (0, 0, 0, 0, 0, padding)) for x in qkv), tokens, branches)


def attend_slowly(
    qkv: list[Tensor], branches: tuple[Branch, ...], mask_padding: bool = False, equal_weights: bool = False
) -> Tensor:
    """[T, H, d] → [T, H, d], head by head, segment by segment, in double precision."""
    results = [slow_branch(*(x.double() for x in qkv), branch, mask_padding) for branch in branches]
    lses = torch.stack([lse for _, lse in results]).detach()
    weights = (lses > -math.inf).double().log().softmax(0) if equal_weights else lses.softmax(0)
    return sum(weight[..., None] * out for weight, (out, _) in zip(weights, results, strict=True))


def slow_branch(query: Tensor, key: Tensor, value: Tensor, branch: Branch, mask_padding: bool) -> tuple[Tensor, Tensor]:
    tokens, heads, channels = query.shape
    segment = min(branch.segment, tokens)
    slots = math.ceil(segment / branch.ratio)
    out, lse = torch.zeros_like(query), torch.full((tokens, heads), -math.inf, dtype=torch.float64)
    for number, head in product(range(math.ceil(tokens / segment)), range(heads)):
        offset = head // math.ceil(heads / branch.ratio)
        places = [offset + slot * branch.ratio for slot in range(slots)]
        read = [number * segment + place if place < segment else tokens for place in places]
        q, k, v = (
            torch.stack([x[token, head] if token < tokens else torch.zeros(channels) for token in read]).double()
            for x in (query, key, value)
        )
        scores = q @ k.T / channels**0.5
        if mask_padding:
            scores[:, [token >= tokens for token in read]] = -math.inf
        attended, attended_lse = scores.softmax(-1) @ v, scores.logsumexp(-1)
        for slot, place in enumerate(places):
            written = number * slots * branch.ratio + place
            if written < tokens and attended_lse[slot] != 0 and not attended_lse[slot].isnan():
                out[written, head], lse[written, head] = attended[slot], attended_lse[slot]
    return out, lse


@pytest.mark.parametrize("heads", [16, 12, 10, 3, 1])
@pytest.mark.parametrize("tokens", [2, 7, 8, 9, 15, 16, 17, 65])
def test_it_equals_the_slow_one_for_any_length_and_number_of_heads(tokens: int, heads: int) -> None:
    qkv = random_qkv(tokens, heads)

    torch.testing.assert_close(attend(qkv, ALIGNED).double(), attend_slowly(qkv, ALIGNED), atol=2e-6, rtol=0)


@pytest.mark.parametrize("branches", [MISALIGNED, SINGLE_SLOT])
@pytest.mark.parametrize(("tokens", "heads"), [(9, 16), (40, 12), (65, 16)])
def test_misaligned_segments_shift_as_published(branches: tuple[Branch, ...], tokens: int, heads: int) -> None:
    qkv = random_qkv(tokens, heads)

    torch.testing.assert_close(attend(qkv, branches).double(), attend_slowly(qkv, branches), atol=2e-6, rtol=0)


@pytest.mark.parametrize("mistake", ["mask_padding", "equal_weights"])
def test_the_comparison_would_notice(mistake: str) -> None:
    qkv = random_qkv(17, 16)

    difference = (attend(qkv, ALIGNED) - attend_slowly(qkv, ALIGNED, **{mistake: True})).abs().max()

    assert difference > 0.05


def test_the_order_of_branches_does_not_matter() -> None:
    qkv = random_qkv(65, 12)

    torch.testing.assert_close(attend(qkv, MISALIGNED), attend(qkv, MISALIGNED[::-1]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("branches", [ALIGNED, MISALIGNED])
def test_training_has_the_same_result_and_the_published_gradients(branches: tuple[Branch, ...]) -> None:
    qkv = [x.requires_grad_() for x in random_qkv(41, 12)]
    slow_qkv = [x.detach().double().requires_grad_() for x in qkv]
    direction = torch.randn(41, 12, 4, generator=torch.Generator().manual_seed(1))

    out, slow_out = attend(qkv, branches), attend_slowly(slow_qkv, branches)
    gradients = torch.autograd.grad((out * direction).sum(), qkv)
    slow_gradients = torch.autograd.grad((slow_out * direction).sum(), slow_qkv)

    torch.testing.assert_close(out.double(), slow_out, atol=2e-6, rtol=0)
    for gradient, slow_gradient in zip(gradients, slow_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), slow_gradient, atol=1e-5, rtol=0)


def test_zero_keys_of_the_last_segment_are_counted_but_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys_computed = []
    kernel = module.attention_with_lse

    def counting_kernel(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys_computed.append(key.shape[2])
        return kernel(query, key, value)

    monkeypatch.setattr(module, "attention_with_lse", counting_kernel)
    attend(random_qkv(1025, 2), (Branch(1024, 1),))

    assert keys_computed == [1024, 1]


@pytest.mark.parametrize(
    ("max_wsi_size", "segments"),
    [(262144, [1024, 5792, 32768, 185363, 1048576]), (250000, [1024, 4870, 23170, 110217, 524288])],
)
def test_segment_lengths_are_the_published_ones(max_wsi_size: int, segments: list[int]) -> None:
    branches = make_branches(max_wsi_size, 256, (1, 2, 4, 8, 16))

    assert [branch.segment for branch in branches] == segments
    assert [branch.ratio for branch in branches] == [1, 2, 4, 8, 16]


def test_the_published_lengths_are_aligned_below_185363_tokens() -> None:
    branches = make_branches(262144, 256, (1, 2, 4, 8, 16))

    assert not any(branch.is_misaligned(185_363) for branch in branches)
    assert any(branch.is_misaligned(185_364) for branch in branches)


@pytest.mark.parametrize(
    ("max_wsi_size", "ratios", "named"),
    [(255, (1, 2), "max_wsi_size"), (4096, (2, 4), "include 1"), (4096, (0, 1), "positive")],
)
def test_impossible_branches_are_refused(max_wsi_size: int, ratios: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_branches(max_wsi_size, 256, ratios)


def test_heads_that_fill_fewer_groups_than_the_ratio_leave_offsets_uncovered() -> None:
    groups = [(g.first_offset, g.first_head, g.groups, g.group_heads) for g in head_groups(12, 8)]

    assert groups == [(0, 0, 6, 2)]


def test_heads_that_do_not_divide_form_a_smaller_last_group() -> None:
    groups = [(g.first_offset, g.first_head, g.groups, g.group_heads) for g in head_groups(10, 4)]

    assert groups == [(0, 0, 3, 3), (3, 9, 1, 1)]
