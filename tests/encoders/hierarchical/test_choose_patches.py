"""Which patches are chosen where the published code fails, or leaves it to the device."""

import pytest
import torch
from torch import Tensor

from encoders.hierarchical.choose_patches import choose_patches


def unit(*rows: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def test_one_patch_is_chosen_and_is_the_anchor() -> None:
    features = torch.rand(3, 1, 8)
    choice = choose_patches(features)
    assert choice.dissimilar.tolist() == choice.chosen.tolist() == [[0], [0], [0]]
    assert torch.equal(choice.anchor, features[0, 0])


def test_more_to_keep_than_there_are_keeps_all() -> None:
    choice = choose_patches(torch.randn(2, 5, 8), dissimilar=4, keep=9)
    assert choice.dissimilar.shape == choice.chosen.shape == (2, 4)
    for unlike, chosen in zip(choice.dissimilar, choice.chosen, strict=True):
        assert sorted(unlike.tolist()) == sorted(chosen.tolist())


def test_the_first_regions_anchor_holds_for_all_later_ones() -> None:
    features = torch.randn(4, 30, 16)
    whole = choose_patches(features, dissimilar=12, keep=6)
    assert whole.chosen[0, 0] == whole.dissimilar[0, 0]
    first = choose_patches(features[:1], dissimilar=12, keep=6)
    rest = choose_patches(features[1:], anchor=first.anchor, dissimilar=12, keep=6)
    assert torch.equal(whole.chosen, torch.cat([first.chosen, rest.chosen]))
    assert torch.equal(whole.anchor, rest.anchor)


def test_another_first_region_changes_what_is_chosen_in_the_others() -> None:
    features = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(1))
    forth, back = choose_patches(features, keep=4), choose_patches(features.flip(0), keep=4)
    assert torch.equal(forth.dissimilar, back.dissimilar.flip(0))
    assert not torch.equal(forth.chosen[1], back.chosen[0])


def test_farthest_points_in_a_plane() -> None:
    # Three bundles: the lonely one first, then whoever is farthest from all that were chosen.
    features = unit([1, 0], [1, 0.1], [1, 0.2], [-1, 0], [0, 1])[None]
    choice = choose_patches(features, dissimilar=3, keep=2)
    assert choice.dissimilar.tolist() == [[3, 0, 4]]
    assert choice.chosen.tolist() == [[3, 4]]


def test_of_equal_patches_the_lower_index_wins_and_equal_likeness_keeps_the_order_of_choosing() -> None:
    features = torch.ones(2, 6, 4)
    choice = choose_patches(features, dissimilar=4, keep=3)
    assert choice.dissimilar.tolist() == [[0, 1, 2, 3]] * 2
    assert choice.chosen.tolist() == [[0, 1, 2]] * 2


def test_no_patch_is_chosen_twice() -> None:
    features = torch.ones(1, 256, 16)
    features[0, ::7] += torch.randn(37, 16)
    choice = choose_patches(features)
    assert len(set(choice.dissimilar[0].tolist())) == 32


def test_half_precision_is_compared_in_single() -> None:
    features = torch.randn(2, 20, 16).half()
    half, single = choose_patches(features), choose_patches(features.float())
    assert torch.equal(half.chosen, single.chosen)
    assert half.anchor.dtype == torch.float32


def test_no_regions_with_an_anchor_choose_nothing() -> None:
    choice = choose_patches(torch.zeros(0, 256, 8), anchor=torch.ones(8))
    assert choice.dissimilar.shape == (0, 32)
    assert choice.chosen.shape == (0, 16)


@pytest.mark.parametrize(
    ("shape", "limits"),
    [((2, 0, 8), {}), ((4, 8), {}), ((1, 4, 8), {"keep": 0}), ((1, 4, 8), {"dissimilar": 0}), ((0, 4, 8), {})],
)
def test_nothing_to_choose_from_is_refused(shape: tuple[int, ...], limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"chosen from|anchor"):
        choose_patches(torch.zeros(shape), **limits)
