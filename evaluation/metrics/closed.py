"""Reads the answer to a closed question: exactly as demanded, and as a reader would take it. A guess is never made.

There is no official script for WSI-Bench's closed questions, and regular expressions in use read "A tumor with glands"
as A and "notice" as no. The rules here are ordered; the first that applies decides, and where none does the answer is
unreadable, which counts as wrong and is counted apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

ClosedForm = Literal["letter", "yes_no"]
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_QUOTES: Final = "\"'“”‘’«»"
_AROUND: Final = _QUOTES + "*`()[]{}<>.:,"
_OPENING: Final = r"[\"'“‘«*`(\[{]*"
_CLOSING: Final = r"[\"'”’»*`)\]}]*"
_WORD_ENDS: Final = r"(?!\w|-\w)"
_CUE: Final = r"\b(?i:answer|choice|option)\b(?:\s+(?i:is)\b|\s*:)*\s*"


@dataclass(frozen=True)
class ClosedReading:
    """`exact` where the stripped text is one of the allowed answers as it is, `read` by the rules; None: unreadable."""

    exact: str | None
    read: str | None


def read_closed(form: ClosedForm, answer: str, options: Sequence[str] = ()) -> ClosedReading:
    """Both readings. `options` are the texts of the options in the order of their letters."""
    text = answer.strip()
    if form == "yes_no":
        return ClosedReading(text if text in ("Yes", "No") else None, _read_yes_no(text))
    letters = LETTERS[: len(options)]
    return ClosedReading(text if len(text) == 1 and text in letters else None, _read_letter(text, letters, options))


def clean_truth(truth: str) -> str:
    """A truth of the set without the quotation marks, fences and white space that some rows have."""
    return truth.strip().strip(_QUOTES + "` \t\r\n").strip()


def _read_letter(text: str, letters: str, options: Sequence[str]) -> str | None:
    bare = text.strip(_AROUND + " \t\r\n")
    if len(bare) == 1:
        return bare.upper() if bare.upper() in letters else None
    by_text = [letter for letter, option in zip(letters, options, strict=True) if _plain(option) == _plain(text)]
    if len(by_text) == 1:
        return by_text[0]
    # "A) …", "(A) …", "A: …" and "A - …"; the article of "A tumor" is no letter.
    if begins := re.match(rf"{_OPENING}\s*([{letters}])(?:[)\].:](?=\s)| - )", text):
        return begins[1]
    return _letter_behind_cue(text, letters)


def _letter_behind_cue(text: str, letters: str) -> str | None:
    """A single letter behind "answer", "choice" or "option"; two different ones, or two joined, are nothing."""
    letter = rf"(?:[{letters}]{_WORD_ENDS}|[{letters.lower()}](?={_CLOSING}(?:\.|\s*\Z)))"
    joined = re.compile(rf"{_CLOSING}\s*(?:(?:,|/|\b(?i:or)\b|\b(?i:and)\b)\s*)+(?:{_CUE})?{_OPENING}{letter}")
    found: set[str] = set()
    for cue in re.finditer(rf"{_CUE}{_OPENING}({letter})", text):
        if joined.match(text, cue.end()):
            return None
        found.add(cue[1].upper())
    return found.pop() if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().removesuffix(".").rstrip()


def _read_yes_no(text: str) -> str | None:
    word = rf"(?i:(yes|no)){_WORD_ENDS}"
    joined = re.compile(rf"{_CLOSING}\s*(?:/|\b(?i:or)\b|\b(?i:and)\b)\s*{_OPENING}{word}")
    begins = re.match(_OPENING + word, text)
    if begins and not _other_joined(joined, text, begins):
        return begins[1].capitalize()
    found: set[str] = set()
    for cue in re.finditer(rf"\b(?i:answer)\b(?:\s+(?i:is)\b|\s*:)*\s*{_OPENING}{word}", text):
        if _other_joined(joined, text, cue):
            return None
        found.add(cue[1].capitalize())
    return found.pop() if len(found) == 1 else None


def _other_joined(joined: re.Pattern[str], text: str, found: re.Match[str]) -> bool:
    other = joined.match(text, found.end())
    return other is not None and other[1].lower() != found[1].lower()
