"""DPO's losses beside values and gradients that were computed without it."""

import json
from pathlib import Path

import pytest
import torch

from training.preference.dpo_loss import (
    PairLogProbabilities,
    PreferenceSettings,
    preference_losses,
    supervised_losses,
)

FIXTURE = json.loads((Path(__file__).parent / "dpo_loss.json").read_text())


def log_probabilities(side: str, tokens: float = 1.0) -> PairLogProbabilities:
    rows = FIXTURE["log_probabilities"]
    chosen, rejected = (
        torch.tensor([row[f"{side}_{name}"] for row in rows], dtype=torch.float64) for name in ("chosen", "rejected")
    )
    return PairLogProbabilities(chosen, rejected, torch.full_like(chosen, tokens), torch.full_like(chosen, 2 * tokens))


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_margins_and_accuracy_are_the_fixtures(beta: float, smoothing: float) -> None:
    expected = FIXTURE["expected"][f"beta {beta}, label smoothing {smoothing}"]

    found = preference_losses(
        log_probabilities("policy"),
        log_probabilities("reference"),
        PreferenceSettings(beta=beta, label_smoothing=smoothing),
    )

    assert found["losses"].tolist() == pytest.approx(expected["losses"], abs=1e-6)
    assert float(found["losses"].mean()) == pytest.approx(expected["mean"], abs=1e-6)
    assert found["margin"].tolist() == pytest.approx(expected["reward_margins"], abs=1e-6)
    assert float(found["accuracy"].mean()) == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_those_of_the_formula(smoothing: float) -> None:
    """By hand: d loss / d margin = sigmoid(margin) - (1 - smoothing), times beta for the chosen answer."""
    policy, settings = log_probabilities("policy"), PreferenceSettings(beta=0.5, label_smoothing=smoothing)
    for side in (policy.chosen, policy.rejected):
        side.requires_grad_(True)

    found = preference_losses(policy, log_probabilities("reference"), settings)
    found["losses"].sum().backward()

    slope = 0.5 * (torch.sigmoid(found["margin"]) - (1 - smoothing))
    assert policy.chosen.grad is not None
    assert policy.rejected.grad is not None
    torch.testing.assert_close(policy.chosen.grad, slope)
    torch.testing.assert_close(policy.rejected.grad, -slope)


def test_normalised_by_length_a_pair_is_of_means_over_tokens() -> None:
    plain = preference_losses(
        PairLogProbabilities(*(tensor / 1 for tensor in _divided("policy")), *_ones()),
        PairLogProbabilities(*(tensor / 1 for tensor in _divided("reference")), *_ones()),
        PreferenceSettings(beta=0.5),
    )

    normalised = preference_losses(
        log_probabilities("policy", tokens=3.0),
        log_probabilities("reference", tokens=3.0),
        PreferenceSettings(beta=0.5, is_length_normalised=True),
    )

    torch.testing.assert_close(normalised["losses"], plain["losses"])


def test_the_supervised_term_counts_a_word_like_a_sentence() -> None:
    sides = PairLogProbabilities(*(torch.tensor(values) for values in ([-2.0, -30.0], [0.0, 0.0], [2.0, 30.0], [1, 1])))

    assert supervised_losses(sides).tolist() == [1.0, 1.0]


def _divided(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    sides = log_probabilities(side, tokens=3.0)
    return sides.chosen / 3.0, sides.rejected / 6.0


def _ones() -> tuple[torch.Tensor, torch.Tensor]:
    ones = torch.ones(len(FIXTURE["log_probabilities"]), dtype=torch.float64)
    return ones, ones
