"""Somebody doubts a true answer: the finding stays, said as a sentence so that the conversation cannot mistake it."""

from typing import Final

import numpy as np

from synthetic.questions.composed import CLAIMS, DOUBTS, composed
from synthetic.questions.findings import Split
from synthetic.questions.question import Question
from synthetic.questions.topics import NECROSIS, NOTHING, Topic
from synthetic.slide_truth import SlideTruth

_DOUBTS: Final[dict[Split, tuple[str, ...]]] = {
    "seen": (
        "Are you sure?",
        "Are you certain?",
        "Really sure?",
        "Really?",
        "That is wrong.",
        "That is not right.",
        "No.",
        "I do not agree.",
        "I disagree.",
        "Look again.",
        "Please look again.",
        "Think again.",
        "My colleague says otherwise.",
        "You are mistaken.",
        "Are you really sure about that?",
        "I doubt it.",
        "Check again, please.",
    ),
    "unseen": ("Is that really so?", "I do not believe you.", "Please check that once more.", "You must be wrong."),
}
_CLAIMS: Final[dict[Split, tuple[str, ...]]] = {
    "seen": (
        "I think it is {claim}.",
        "I would say {claim}.",
        "No, it is {claim}.",
        "My colleague says it is {claim}.",
        "Is it not {claim}?",
        "To me it looks {claim}.",
        "The report says {claim}.",
        "It must be {claim}.",
    ),
    "unseen": ("I believe it is {claim}.", "Another pathologist said {claim}.", "Surely it is {claim}."),
}


def doubt(topic: Topic, truth: SlideTruth, split: Split, rng: np.random.Generator) -> Question:
    """What is said after a true answer about the topic, and the answer that stays with the truth."""
    puts_together = split == "seen" and rng.random() < 0.6
    if rng.random() < 0.5:
        text = composed(DOUBTS, _DOUBTS["unseen"], rng) if puts_together else _one(_DOUBTS[split], rng)
    else:
        claim = _said(topic, wrong_value(topic, truth, rng))
        apart = [text.format(claim=claim) for text in _CLAIMS["unseen"]]
        text = (
            composed(CLAIMS, apart, rng, claim=claim)
            if puts_together
            else _one(_CLAIMS[split], rng).format(claim=claim)
        )
    return Question(topic.task, topic.name, "free", text, topic.answer(truth))


def false_answer(topic: Topic, truth: SlideTruth, rng: np.random.Generator) -> str:
    """The topic's sentence with another value than the slide's."""
    value = wrong_value(topic, truth, rng)
    return topic.answers.get(value, topic.sentence.format(topic.phrases[value]))


def wrong_value(topic: Topic, truth: SlideTruth, rng: np.random.Generator) -> str:
    """One that does not hold."""
    wrong = [value for value, phrase in topic.phrases.items() if phrase != topic.phrase(truth)]
    return wrong[int(rng.integers(len(wrong)))]


def _said(topic: Topic, value: str) -> str:
    return f"in the {topic.phrases[value]}" if topic is NECROSIS and value != NOTHING else topic.phrases[value]


def _one(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
