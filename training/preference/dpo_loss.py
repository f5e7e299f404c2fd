"""Direct preference optimisation (DPO, arXiv 2305.18290, equation 7), from log-probabilities alone.

Label smoothing is conservative DPO's (Mitchell, "A note on DPO with noisy preferences"): a share of each pair counts as
if it stood the wrong way round. Length normalisation divides each log-probability by
the answer's tokens, so that a pair of a word and a paragraph is not decided by their lengths.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class PreferenceSettings:
    """What is added to the ordinary task's loss, per pair: `weight` of DPO's loss and `supervised` of the chosen
    answer's cross-entropy, a mean over its tokens. A `weight` of 0 is supervised tuning on the chosen answers alone,
    the control that preference tuning is measured against."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    is_length_normalised: bool = False
    weight: float = 1.0
    supervised: float = 1.0


@dataclass(frozen=True)
class PairLogProbabilities:
    """Log-probabilities [P] of P pairs' answers, summed over their tokens, and how many tokens they have [P]."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    def per_token(self) -> tuple[Tensor, Tensor]:
        """Means over the tokens."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


def preference_losses(
    policy: PairLogProbabilities, reference: PairLogProbabilities, settings: PreferenceSettings
) -> Mapping[str, Tensor]:
    """`losses` [P] of DPO, and what tells how it goes: rewards and margins [P], `accuracy` [P] (1 where the margin is
    above 0; one of exactly 0 is not right)."""
    policy_side, reference_side = (
        side.per_token() if settings.is_length_normalised else (side.chosen, side.rejected)
        for side in (policy, reference)
    )
    chosen = settings.beta * (policy_side[0] - reference_side[0])
    rejected = settings.beta * (policy_side[1] - reference_side[1])
    margin = chosen - rejected
    smoothing = settings.label_smoothing
    losses = -(1 - smoothing) * functional.logsigmoid(margin) - smoothing * functional.logsigmoid(-margin)
    return {
        "losses": losses,
        "chosen_reward": chosen.detach(),
        "rejected_reward": rejected.detach(),
        "margin": margin.detach(),
        "accuracy": (margin.detach() > 0).float(),
    }


def supervised_losses(policy: PairLogProbabilities) -> Tensor:
    """[P]: the chosen answers' cross-entropy, each a mean over its tokens, so that a word counts like a sentence."""
    return -policy.per_token()[0]


def mean_losses(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means over the pairs."""
    return {name: torch.mean(value.float()) for name, value in losses.items()}
