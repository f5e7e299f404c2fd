"""Questions as people type them: led in by a phrase, with a word more, in small letters. The answer stays the same."""

from dataclasses import replace
from typing import Final

import numpy as np

from synthetic.questions.question import Question

_LEADS: Final = (
    "Hello,", "Thank you.", "Thanks.", "One more question:", "Another question:", "For my notes:", "Next:",
    "As a colleague would ask:", "Let us go on.", "Well,", "Now,", "Doctor,", "Please help me.", "Quickly:",
)  # fmt: skip
# Any words: the model is to look for those that matter and pass over the rest.
FILLERS: Final = tuple(
    [
        "a",
        "about",
        "again",
        "and",
        "anything",
        "appear",
        "areas",
        "be",
        "breaks",
        "by",
        "carefully",
        "case",
        "clear",
        "close",
        "colleague",
        "could",
        "course",
        "def",
        "doctor",
        "else",
        "every",
        "exactly",
        "example",
        "feel",
        "finally",
        "first",
        "fixed",
        "given",
        "good",
        "he",
        "hello",
        "here",
        "however",
        "image",
        "important",
        "indeed",
        "is",
        "just",
        "kindly",
        "last",
        "line",
        "literal",
        "look",
        "looking",
        "machine",
        "main",
        "maybe",
        "mean",
        "moment",
        "need",
        "next",
        "noqa",
        "note",
        "notice",
        "now",
        "okay",
        "okenizer",
        "on",
        "once",
        "one",
        "opinion",
        "our",
        "patient",
        "per",
        "perhaps",
        "place",
        "please",
        "point",
        "possible",
        "quickly",
        "really",
        "region",
        "right",
        "same",
        "say",
        "second",
        "section",
        "seem",
        "shown",
        "small",
        "something",
        "specimen",
        "split",
        "still",
        "sure",
        "symbol",
        "tell",
        "text",
        "than",
        "thank",
        "thanks",
        "the",
        "then",
        "therefore",
        "they",
        "think",
        "through",
        "ties",
        "today",
        "together",
        "tokenizer",
        "train",
        "trainer",
        "two",
        "under",
        "usually",
        "very",
        "view",
        "want",
        "well",
        "were",
        "whether",
        "while",
        "whole",
        "why",
        "will",
        "wonder",
        "word",
        "would",
        "yet",
        "you",
        "your",
    ]
)


def disturbed(question: Question, rng: np.random.Generator) -> Question:
    """The question with none, one or several of these disturbances in its first line; its options stay whole."""
    first, *others = question.text.split("\n")
    changed = first
    if rng.random() < 0.3:
        changed = _with_fillers(changed, rng)
    if rng.random() < 0.15:
        changed = changed[0].lower() + changed[1:]
    if rng.random() < 0.2:
        changed = f"{_LEADS[int(rng.integers(len(_LEADS)))]} {changed}"
    text = "\n".join([changed, *others])
    return replace(question, text=text) if all(option in text for option in question.options) else question


def _with_fillers(text: str, rng: np.random.Generator) -> str:
    words = text.split(" ")
    for _ in range(int(rng.integers(1, 4))):
        words.insert(int(rng.integers(len(words) + 1)), FILLERS[int(rng.integers(len(FILLERS)))])
    return " ".join(words)
