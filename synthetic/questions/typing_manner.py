"""How people type a question: curt or polite, with the kind of answer they want, in a hurry. The answer is the same.

Not as `disturbed`, whose fillers stand anywhere: these are what users of the first weeks were seen to type.
"""

from typing import Final

import numpy as np

from synthetic.questions.composed import ENDINGS, OPENINGS, YES_NO_ENDINGS, Frame, composed
from synthetic.questions.findings import Split

_YES_NO_ENDINGS: Final[dict[Split, tuple[str, ...]]] = {
    "seen": (
        "Answer yes or no.",
        "Yes or no?",
        "Please answer yes or no.",
        "Answer with yes or no.",
        "Just yes or no.",
        "Say yes or no.",
        "A yes or no is enough.",
    ),
    "unseen": ("Answer only yes or no.", "Reply with yes or no.", "Yes or no, please."),
}
_ENDINGS: Final[dict[Split, tuple[str, ...]]] = {
    "seen": ("Please.", "Thank you.", "Thanks!", "Be brief.", "I need to know.", "Please be honest.", "It is urgent."),
    "unseen": ("Thanks in advance.", "Please answer briefly.", "I would be glad to know."),
}
_OPENINGS: Final[dict[Split, tuple[str, ...]]] = {
    "seen": (
        "Please tell me:",
        "Hi,",
        "Hello,",
        "Doctor,",
        "Dear colleague,",
        "Quick question:",
        "Excuse me,",
        "Sorry,",
        "For the tumour board:",
        "About this slide:",
        "As you see it:",
    ),
    "unseen": ("Good evening,", "Just to be sure:", "One thing:", "If I may ask:"),
}


def typed(text: str, split: Split, rng: np.random.Generator, *, yes_no: bool) -> str:
    """The question as somebody types it, a third of the time as it was."""
    if rng.random() < 0.3:
        return text
    if rng.random() < 0.35:
        text = f"{_phrase(_OPENINGS, OPENINGS, split, rng)} {text[0].lower()}{text[1:]}"
    if rng.random() < 0.5:
        if yes_no and rng.random() < 0.7:
            text = f"{text} {_phrase(_YES_NO_ENDINGS, YES_NO_ENDINGS, split, rng)}"
        else:
            text = f"{text} {_phrase(_ENDINGS, ENDINGS, split, rng)}"
    return _in_letters(text, rng)


def _in_letters(text: str, rng: np.random.Generator) -> str:
    """In small letters or in capitals, without marks, with a typing error or two, or as it is."""
    draw = rng.random()
    if 0.2 <= draw < 0.4:
        text = text.rstrip("?.!") or text
    if draw < 0.12 or 0.3 <= draw < 0.4:
        return text.lower()
    if draw < 0.2:
        return text.upper()
    if 0.4 <= draw < 0.85:
        text = _misspelt(text, rng)
    return _misspelt(text, rng) if 0.7 <= draw < 0.85 else text


def _phrase(
    listed: dict[Split, tuple[str, ...]], frames: tuple[Frame, ...], split: Split, rng: np.random.Generator
) -> str:
    """One of the list, or for training as often one that is put together."""
    if split == "unseen" or rng.random() < 0.5:
        return _one(listed[split], rng)
    return composed(frames, listed["unseen"], rng)


def examined_manners(text: str, rng: np.random.Generator, *, yes_no: bool) -> list[tuple[str, str]]:
    """Each manner once, by name, in words that training never saw: what the examination asks of every question."""
    ending = _one(_YES_NO_ENDINGS["unseen"] if yes_no else _ENDINGS["unseen"], rng)
    return [
        ("plain", text),
        ("suffix", f"{text} {ending}"),
        ("polite", f"{_one(_OPENINGS['unseen'], rng)} {text[0].lower()}{text[1:]} {_one(_ENDINGS['unseen'], rng)}"),
        ("small letters", text.lower()),
        ("capitals", text.upper()),
        ("no punctuation", text.rstrip("?.!")),
        ("typing error", _misspelt(text, rng)),
    ]


def _misspelt(text: str, rng: np.random.Generator) -> str:
    """One letter of a longer word lost, doubled or changed with its neighbour; never the first."""
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word.rstrip("?.!,:")) > 4]
    if not long:
        return text
    index = long[int(rng.integers(len(long)))]
    word = words[index]
    at = int(rng.integers(1, len(word.rstrip("?.!,:")) - 1))
    kind = rng.integers(3)
    if kind == 0:
        words[index] = word[:at] + word[at + 1 :]
    elif kind == 1:
        words[index] = word[:at] + word[at] + word[at:]
    else:
        words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def _one(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
