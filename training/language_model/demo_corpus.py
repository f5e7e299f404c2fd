"""The text that the demo model's tokenizer is made from: conversations in training's wordings, and common words."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from model_store.chat_template import SYSTEM_SENTENCES
from synthetic.questions.conversation import conversation, written_context
from synthetic.questions.disturb import FILLERS
from synthetic.questions.wordings import SEEN
from synthetic.slide_truth import FIRST_TRAINING_SEED, slide_truth

SLIDES: Final = 2_000


def demo_corpus() -> Iterator[str]:
    """The same texts each time."""
    rng = np.random.default_rng(0)
    yield from SYSTEM_SENTENCES.values()
    yield from (f" {word}" for word in FILLERS)
    for seed in range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + SLIDES):
        truth = slide_truth(seed)
        yield written_context(truth, rng)
        for question in conversation(truth, SEEN, rng, turns=6, closed=0.5):
            yield f"USER: {question.text} ASSISTANT: {question.answer}"
