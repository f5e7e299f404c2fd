"""A preference task of a toy language model: pairs of random tokens about slides of three tokens."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from toy_language_model import PROJECTOR_WIDTH, VOCABULARY, OneBatch, toy_batch

from training.language_model.slide_language_model import SlideLanguageModel
from training.preference.dpo_loss import PreferenceSettings
from training.preference.reference import reference_log_probabilities
from training.preference.task import PreferenceTask, ShownPairs
from training.preference.tokenized_pairs import TokenizedPair

SLIDES, PAIRS = 4, 12
PACKAGED_MODELS = Path(__file__).parents[2] / "model_store" / "packaged"


def packaged_tokenizer() -> Tokenizer:
    """The demo model's, which takes seconds to train anew."""
    return Tokenizer.from_file(str(PACKAGED_MODELS / "demo" / "llm" / "tokenizer.json"))


def toy_pairs() -> list[TokenizedPair]:
    """Of prompts and answers of different lengths; the slide's three placeholders stand in each prompt."""
    rng = np.random.default_rng(5)

    def drawn(least: int, most: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(3, VOCABULARY, int(rng.integers(least, most))))

    return [
        TokenizedPair((1, *[VOCABULARY] * 3, *drawn(2, 9)), (*drawn(1, 4), 2), (*drawn(1, 7), 2)) for _ in range(PAIRS)
    ]


def toy_slides(width: int = PROJECTOR_WIDTH) -> tuple[Tensor, Tensor]:
    """Slide tokens, and of which slide each pair is."""
    generator = torch.Generator().manual_seed(6)
    return torch.randn(SLIDES, 3, width, generator=generator).half(), torch.arange(PAIRS) % SLIDES


def toy_task(
    model: SlideLanguageModel,
    folder: Path,
    settings: PreferenceSettings | None = None,
    width: int = PROJECTOR_WIDTH,
) -> PreferenceTask:
    """The model is its own reference, as it is now."""
    tokens, rows = toy_slides(width)
    reference = reference_log_probabilities(model, toy_pairs(), tokens, rows, folder, "fp32")
    return PreferenceTask(
        OneBatch(toy_batch()),
        ShownPairs(toy_pairs(), tokens, rows, reference),
        settings or PreferenceSettings(beta=0.5),
        step_tokens=200,
        seed=1,
    )
