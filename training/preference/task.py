"""The preference stage's batches and loss: pairs of answers beside the ordinary third stage's conversations.

Without the latter a model forgets in a hundred steps what it knew, while its accuracy on pairs reaches 1: what a pair
teaches is learned at the expense of all that no pair asks about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.loop.run_stage import StageTask
from training.preference.dpo_loss import (
    PairLogProbabilities,
    PreferenceSettings,
    mean_losses,
    preference_losses,
    supervised_losses,
)
from training.preference.tokenized_pairs import TokenizedPair, stacked_chosen, stacked_pairs

_ORDINARY = "ordinary."
# Pairs of about the same length are asked together: a long one would pad all others.
_BUCKETS = 16


@dataclass(frozen=True)
class ShownPairs:
    """n pairs, and what they are about: `slide_tokens` float16 [S, N, D], of which `rows` int64 [n] says each pair's;
    `reference` float32 [n, 2]: the frozen start model's log-probabilities of the chosen and of the rejected answer."""

    pairs: Sequence[TokenizedPair]
    slide_tokens: Tensor
    rows: Tensor
    reference: Tensor


class PreferenceTask:
    """`step_tokens` of a step are pairs'; the ordinary task's settings say how many are its own, at least as many."""

    def __init__(
        self, ordinary: StageTask, shown: ShownPairs, settings: PreferenceSettings, *, step_tokens: int, seed: int
    ) -> None:
        self._ordinary = ordinary
        self._shown = shown
        self._settings = settings
        self._step_tokens = step_tokens
        self._seed = seed
        order = np.argsort([pair.longest for pair in shown.pairs], kind="stable")
        self._buckets = [bucket for bucket in np.array_split(order, _BUCKETS) if len(bucket)]

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        """The ordinary batch under names that begin with `ordinary.`; `ids` and `said` as in `stacked_pairs`,
        `slide_tokens` float32 [2P, N, D], and `reference` [P, 2]. Where preferences weigh nothing, the chosen answers
        alone: `stacked_chosen`, `slide_tokens` [P, N, D]."""
        rng = np.random.default_rng([self._seed, step, rank, 7])
        bucket = self._buckets[int(rng.integers(len(self._buckets)))]
        longest = max(self._shown.pairs[index].longest for index in bucket)
        count = max(1, self._step_tokens // (2 * longest) // ranks)
        chosen = rng.choice(bucket, min(count, len(bucket)), replace=False)
        indices = torch.from_numpy(chosen)
        shown = self._shown.slide_tokens[self._shown.rows[indices]].float()
        ordinary = {f"{_ORDINARY}{name}": it for name, it in self._ordinary.batch(step, rank, ranks).items()}
        pairs = [self._shown.pairs[index] for index in chosen]
        if not self._settings.weight:
            return {**ordinary, **stacked_chosen(pairs), "slide_tokens": shown}
        return {
            **ordinary,
            **stacked_pairs(pairs),
            "slide_tokens": torch.cat([shown, shown]),
            "reference": self._shown.reference[indices],
        }

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The ordinary task's loss with the pairs' added; rewards, margin and accuracy are of the pairs, and are not
        there where preferences weigh nothing."""
        given = {name.removeprefix(_ORDINARY): tensor for name, tensor in batch.items() if name.startswith(_ORDINARY)}
        ordinary = self._ordinary.loss(model, given)["loss"]
        said = {name: batch[name] for name in ("ids", "said", "slide_tokens")}
        summed = model(said)["log_probabilities"]
        if not self._settings.weight:
            supervised = -(summed / batch["said"].sum(dim=1)).mean()
            total = ordinary + self._settings.supervised * supervised
            return {"loss": total, "ordinary": ordinary.detach(), "supervised": supervised}
        policy = pair_log_probabilities(summed, batch["said"])
        reference = _split(batch["reference"].T.reshape(-1), batch["said"])
        measured = mean_losses(preference_losses(policy, reference, self._settings))
        preference, supervised = measured.pop("losses"), supervised_losses(policy).mean()
        total = ordinary + self._settings.weight * preference + self._settings.supervised * supervised
        return {
            "loss": total,
            "ordinary": ordinary.detach(),
            "preference": preference,
            "supervised": supervised,
            **measured,
        }


def pair_log_probabilities(summed: Tensor, said: Tensor) -> PairLogProbabilities:
    """Of the model's log-probabilities [2P] of `stacked_pairs`, whose `said` counts the tokens."""
    return _split(summed, said)


def _split(summed: Tensor, said: Tensor) -> PairLogProbabilities:
    tokens = said.sum(dim=1).to(summed.dtype)
    half = len(summed) // 2
    return PairLogProbabilities(summed[:half], summed[half:], tokens[:half], tokens[half:])
