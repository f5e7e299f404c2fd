"""The learning rate of each step."""

import pytest
from training_tasks import settings

from training.loop.settings import learning_rate, rate_factor


def test_the_rate_rises_stays_and_falls_to_a_twentieth() -> None:
    plan = settings(steps=1000, learning_rate=1.0, warmup_steps=10, decay_from=0.7)

    rates = [learning_rate(plan, step) for step in range(1000)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert set(rates[10:701]) == {1.0}
    assert rates[850] == pytest.approx((1 + 0.05) / 2)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


def test_a_cosine_falls_from_the_end_of_the_warm_up_to_nothing() -> None:
    plan = settings(steps=110, learning_rate=2.0, warmup_steps=10, schedule="cosine")

    assert learning_rate(plan, 9) == 2.0
    assert learning_rate(plan, 60) == pytest.approx(1.0)
    assert learning_rate(plan, 110) == pytest.approx(0.0)


def test_the_first_factor_whose_text_is_in_the_name_holds() -> None:
    plan = settings(rate_factors=(("mm_projector", 0.1), ("bias", 0.5)))

    assert rate_factor(plan, "mm_projector.0.bias") == 0.1
    assert rate_factor(plan, "layers.0.bias") == 0.5
    assert rate_factor(plan, "layers.0.weight") == 1.0
