import dataclasses

import numpy as np
import pytest

from encoders.encoder_id import encoder_id
from encoders.tile_budget import TileBudget
from encoders.tiling.spend_budget import within_budget
from encoders.types import SlideWarning, TilePlan
from model_store.installed import InstalledModel


def with_tiles(plan: TilePlan, tiles: int) -> TilePlan:
    return dataclasses.replace(plan, coords=np.stack([np.arange(tiles) * 256, np.zeros(tiles, np.int64)], axis=1))


def test_uniform_takes_evenly_spaced_tiles_from_the_first_to_the_last() -> None:
    assert TileBudget(5).chosen(9).tolist() == [0, 2, 4, 6, 8]
    assert TileBudget(1).chosen(9).tolist() == [0]


@pytest.mark.parametrize("budget", [TileBudget(7), TileBudget(7, "random", 3)])
def test_tiles_are_each_taken_once_in_the_plans_order(budget: TileBudget) -> None:
    found = budget.of_slide("ab" * 32).chosen(40)

    assert len(found) == len(set(found.tolist())) == 7
    assert np.all(np.diff(found) > 0)
    assert found.min() >= 0
    assert found.max() < 40


def test_a_random_choice_is_the_same_for_a_slide_and_seed_and_another_for_others() -> None:
    def drawn(seed: int, slide_id: str) -> tuple[int, ...]:
        return tuple(TileBudget(20, "random", seed).of_slide(slide_id).chosen(1000).tolist())

    assert drawn(0, "aa") == drawn(0, "aa")
    assert len({drawn(0, "aa"), drawn(1, "aa"), drawn(0, "bb")}) == 3


def test_a_slide_with_fewer_tiles_stays_whole_and_unwarned(plan: TilePlan) -> None:
    whole = with_tiles(plan, 5)

    assert within_budget(whole, TileBudget(5)) is whole
    assert within_budget(whole, None) is whole


def test_what_is_left_out_is_said_before_all_other_doubts(plan: TilePlan) -> None:
    whole = dataclasses.replace(with_tiles(plan, 9), warnings=(SlideWarning("tissue_doubted", "Lines."),))

    thinned = within_budget(whole, TileBudget(3))

    assert thinned.coords[:, 0].tolist() == [0, 4 * 256, 8 * 256]
    assert [it.code for it in thinned.warnings] == ["tile_budget", "tissue_doubted"]
    assert "3 of the slide's 9 tiles" in thinned.warnings[0].detail


def test_every_budget_is_its_own_encoder(demo_model: InstalledModel) -> None:
    budgets = [None, TileBudget(100), TileBudget(1000), TileBudget(100, "random"), TileBudget(100, "random", 1)]

    assert len({encoder_id(demo_model, budget=budget) for budget in budgets}) == len(budgets)
    # No seed draws an even spacing.
    assert encoder_id(demo_model, budget=TileBudget(100, seed=5)) == encoder_id(demo_model, budget=TileBudget(100))
