"""Batches of conversations for the language model: about slides in words, about slides as tokens, and honest ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from model_store.contracts.prompt import PromptTemplate
from synthetic.questions.conversation import conversation, written_context
from synthetic.questions.honesty import honest_conversation, region_conversation
from synthetic.questions.wordings import SEEN
from synthetic.slide_truth import FIRST_TRAINING_SEED, SlideTruth, slide_truth
from training.language_model.scaffold import mean_of
from training.language_model.tokenized import (
    TokenizedConversation,
    slide_opening,
    stacked,
    text_opening,
    tokenize_conversation,
)

# The demo model's system sentence costs as much to read as two questions.
_SYSTEM_SHARE = 0.3
# Rough lengths in tokens, to keep the cost of a step the same however many turns its conversations have.
_TURN_TOKENS, _OPENING_TOKENS = 27, 60


@dataclass(frozen=True)
class ConversationMix:
    """What the conversations of a stage are like; a step takes as many as about `step_tokens` allow."""

    template: PromptTemplate
    most_turns: int
    closed: float
    step_tokens: int
    scaffold_weight: float
    # What a token of a question counts as a target, beside 1 for one of an answer.
    prompt_weight: float
    seed: int
    # Share of questions in the words of people who do not know the topics.
    everyday: float = 0.0
    # What the first token of a free answer counts in an honest conversation.
    first_weight: float = 1.0

    def turns_and_rows(self, rng: np.random.Generator, ranks: int) -> tuple[int, int]:
        """Questions in each conversation of a step (equal lengths waste no padding), and conversations."""
        turns = int(rng.integers(1, self.most_turns + 1))
        return turns, max(1, self.step_tokens // (_OPENING_TOKENS + turns * _TURN_TOKENS) // ranks)


class ConversationTask:
    """What all conversations share: the loss."""

    def __init__(self, mix: ConversationMix, tokenizer: Tokenizer) -> None:
        self.mix = mix
        self.tokenizer = tokenizer

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weighted mean over the tokens asked for, and the scaffold's losses."""
        losses = dict(model(batch))
        answers = losses.pop("answers")
        total = answers + self.mix.scaffold_weight * mean_of(losses) if losses else answers
        return {"loss": total, "answers": answers, **losses}

    def tokenized(self, truth: SlideTruth, turns: int, opening: str, rng: np.random.Generator) -> TokenizedConversation:
        """A conversation about a slide of that truth, in wordings for training."""
        questions = conversation(truth, SEEN, rng, turns=turns, closed=self.mix.closed, everyday=self.mix.everyday)
        return tokenize_conversation(self.tokenizer, questions, opening=opening, prompt_weight=self.mix.prompt_weight)


class WrittenSlideTask(ConversationTask):
    """Slides in words: any number of them, for nothing is drawn."""

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        """Token ids and targets, as in training.language_model.tokenized."""
        rng = np.random.default_rng([self.mix.seed, step, rank])
        turns, rows = self.mix.turns_and_rows(rng, ranks)
        return stacked([self._one(turns, rng) for _ in range(rows)])

    def _one(self, turns: int, rng: np.random.Generator) -> TokenizedConversation:
        truth = slide_truth(int(rng.integers(FIRST_TRAINING_SEED, 2**40)))
        opening = text_opening(self.mix.template, written_context(truth, rng), with_system=rng.random() < _SYSTEM_SHARE)
        return self.tokenized(truth, turns, opening, rng)


@dataclass(frozen=True)
class TokenizedSlides:
    """Slide tokens float16 [slides, N, D] of views of training slides, and what is true of each."""

    tokens: Tensor
    truths: tuple[SlideTruth, ...]


class SlideTask(ConversationTask):
    """Slides as tokens of the slide encoder."""

    def __init__(self, mix: ConversationMix, tokenizer: Tokenizer, slides: TokenizedSlides, noise: float) -> None:
        super().__init__(mix, tokenizer)
        self._slides = slides
        self._noise = noise

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        """As of slides in words, and `slide_tokens` float32 [B, N, D], noisy so that none is learned by heart."""
        rng = np.random.default_rng([self.mix.seed, step, rank])
        turns, rows = self.mix.turns_and_rows(rng, ranks)
        chosen = rng.integers(0, len(self._slides.truths), rows)
        opening = slide_opening(self.mix.template, self._slides.tokens.shape[1])
        made = stacked([self.tokenized(self._slides.truths[row], turns, opening, rng) for row in chosen])
        return {**made, "slide_tokens": _noisy(self._slides.tokens[torch.from_numpy(chosen)], self._noise, rng)}


class HonestTask(ConversationTask):
    """Half of a step's conversations as `SlideTask` has them; the others are honest ones (synthetic.questions.honesty),
    `region_share` of them about regions, of which as many have necrosis as have none."""

    def __init__(
        self,
        mix: ConversationMix,
        tokenizer: Tokenizer,
        slides: TokenizedSlides,
        regions: TokenizedSlides,
        *,
        region_share: float,
        noise: float,
    ) -> None:
        super().__init__(mix, tokenizer)
        self._slides = slides
        self._regions = regions
        self._region_share = region_share
        self._noise = noise
        places = range(len(regions.truths))
        having = [place for place in places if regions.truths[place].necrosis is not None]
        self._regions_by_necrosis = (having, [place for place in places if regions.truths[place].necrosis is None])

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        """As `SlideTask.batch`."""
        rng = np.random.default_rng([self.mix.seed, step, rank, 11])
        turns, rows = self.mix.turns_and_rows(rng, ranks)
        opening = slide_opening(self.mix.template, self._slides.tokens.shape[1])
        made: list[TokenizedConversation] = []
        tokens: list[Tensor] = []
        for row in range(max(2, rows)):
            shown, place = self._shown(rng, may_be_region=row % 2 == 1)
            truth = shown.truths[place]
            tokens.append(shown.tokens[place])
            if row % 2 == 0:
                made.append(self.tokenized(truth, turns, opening, rng))
                continue
            asks = region_conversation if shown is self._regions else honest_conversation
            made.append(
                tokenize_conversation(
                    self.tokenizer,
                    asks(truth, "seen", rng, turns),
                    opening=opening,
                    prompt_weight=self.mix.prompt_weight,
                    first_weight=self.mix.first_weight,
                )
            )
        return {**stacked(made), "slide_tokens": _noisy(torch.stack(tokens), self._noise, rng)}

    def _shown(self, rng: np.random.Generator, *, may_be_region: bool) -> tuple[TokenizedSlides, int]:
        if may_be_region and rng.random() < self._region_share:
            places = self._regions_by_necrosis[int(rng.integers(2))]
            if places:
                return self._regions, places[int(rng.integers(len(places)))]
        return self._slides, int(rng.integers(len(self._slides.truths)))


def _noisy(tokens: Tensor, noise: float, rng: np.random.Generator) -> Tensor:
    drawn = torch.from_numpy(rng.standard_normal(tokens.shape, dtype=np.float32))
    return tokens.float() + noise * drawn
