"""A conversation about one slide: several questions with their answers, as a patient's clinician would go on asking."""

from collections.abc import Callable
from typing import Final

import numpy as np

from synthetic.questions.disturb import disturbed
from synthetic.questions.everyday import everyday_question
from synthetic.questions.question import (
    Question,
    any_topic,
    letter_question,
    necrosis_question,
    never_drawn_question,
    open_question,
    report_question,
    summary_question,
    yes_no_question,
)
from synthetic.questions.topics import ATTRIBUTES, Topic
from synthetic.questions.wordings import Wordings
from synthetic.slide_truth import SlideTruth

# Keys that stand before an attribute's value where a context is a mere list.
_KEYS: Final = {
    "mitoses": "mitoses ",
    "lymphocytes": "lymphocytes ",
    "stroma": "stroma ",
    "tumour fraction": "tumour ",
    "location of necrosis": "necrosis ",
}


def conversation(
    truth: SlideTruth,
    wordings: Wordings,
    rng: np.random.Generator,
    *,
    turns: int,
    closed: float,
    everyday: float = 0.0,
) -> list[Question]:
    """`turns` questions as people type them: a share of `everyday` as they come, of the others `closed` are closed."""
    return [_any_question(truth, wordings, rng, closed, everyday) for _ in range(turns)]


def written_context(truth: SlideTruth, rng: np.random.Generator) -> str:
    """The slide in words, in random order: sentences, short statements, or a bare list. It stands for the slide."""
    style: Callable[[Topic], str] = (
        lambda topic: topic.answer(truth),
        lambda topic: f"{topic.nouns[rng.integers(len(topic.nouns))]} {topic.phrase(truth)}.",
        lambda topic: _KEYS.get(topic.name, "") + topic.phrase(truth),
    )[rng.integers(3)]
    return " ".join(style(topic) for topic in rng.permutation(np.array(ATTRIBUTES, dtype=object)))


def _any_question(
    truth: SlideTruth, wordings: Wordings, rng: np.random.Generator, closed: float, everyday: float
) -> Question:
    if everyday and rng.random() < everyday:
        return everyday_question(truth, rng)
    return disturbed(_question(truth, wordings, rng, rng.random() < closed), rng)


def _question(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator, closed: bool) -> Question:
    draw = rng.random()
    if closed:
        return _closed(truth, wordings, rng, draw)
    return _open(truth, wordings, rng, draw)


def _closed(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator, draw: float) -> Question:
    if draw < 0.55:
        return letter_question(any_topic(rng), truth, wordings, rng)
    if draw < 0.88:
        return yes_no_question(any_topic(rng), truth, wordings, rng)
    if draw < 0.97:
        return necrosis_question(truth, wordings, rng)
    return never_drawn_question(wordings, rng)


def _open(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator, draw: float) -> Question:
    if draw < 0.75:
        return open_question(any_topic(rng), truth, wordings, rng)
    if draw < 0.80:
        return never_drawn_question(wordings, rng)
    if draw < 0.90:
        return summary_question(truth, wordings, rng)
    return report_question(truth, wordings, rng)
