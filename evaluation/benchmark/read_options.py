"""Options that stand in a question's text: "… A) first B) second", "A. first", "(A) first"."""

import re
from dataclasses import dataclass

from evaluation.metrics.closed import LETTERS


@dataclass(frozen=True)
class OptionsInText:
    """A question taken apart: what stands before the options, the options, and what stands before the first letter."""

    stem: str
    options: tuple[str, ...]


def options_in(question: str) -> tuple[str, ...]:
    """The texts of the options in order; () where there are fewer than two."""
    return taken_apart(question).options


def taken_apart(question: str) -> OptionsInText:
    """The question without its options, and these. Letters are looked for in order, A first."""
    places: list[tuple[int, int]] = []
    at = 0
    for letter in LETTERS:
        found = re.compile(rf"(?:(?<=\s)|(?<=^)|(?<=[\s,;]\())\(?{letter}[).:]\s+").search(question, at)
        if found is None:
            break
        places.append(found.span())
        at = found.end()
    if len(places) < 2:
        return OptionsInText(question, ())
    ends = [start for start, _ in places[1:]] + [len(question)]
    texts = tuple(
        question[begin:end].strip().rstrip(",;").strip() for (_, begin), end in zip(places, ends, strict=True)
    )
    return OptionsInText(question[: places[0][0]].strip(), texts)


def with_options(stem: str, options: tuple[str, ...]) -> str:
    """A question with lettered options, a line each."""
    return "\n".join([stem, *(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))])
