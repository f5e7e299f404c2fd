"""Reads a judge's reply. Nothing is repaired: what is not whole has a reason, and is counted under it.

An unread reply says nothing of the answer that was judged, so the item is unjudged and not wrong; both means are given.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Reason = Literal[
    "no_reply",
    "empty",
    "not_json",
    "not_a_list_of_objects",
    "wrong_number_of_claims",
    "missing_score",
    "score_not_in_set",
    "not_a_list_of_texts",
    "no_claims",
]
SCORES: Final = (0, 0.3, 0.7, 1)
_THOUGHT: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Judged:
    """The item's score, the mean over its claims to three places as published, or the reason why there is none."""

    score: float | None
    reason: Reason | None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Claims:
    """The claims, or the reason why there are none."""

    claims: tuple[str, ...]
    reason: Reason | None


class _Unread(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def read_scores(reply: str | None, claims: Sequence[str]) -> Judged:
    """What a reply says of these claims; `reply` None where the judge gave none after all attempts."""
    try:
        found = _list_in(reply)
        if not all(isinstance(entry, dict) for entry in found):
            raise _Unread("not_a_list_of_objects")
        if len(found) != len(claims):
            raise _Unread("wrong_number_of_claims")
        values = [entry.get("score") for entry in found]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            raise _Unread("missing_score")
        if not all(value in SCORES for value in values):
            raise _Unread("score_not_in_set")
    except _Unread as error:
        return Judged(None, error.reason)
    scores = tuple(float(value) for value in values)
    return Judged(round(sum(scores) / len(scores), 3), None, scores) if scores else Judged(None, "no_claims")


def read_claims(reply: str | None) -> Claims:
    """The claims in a reply: a list of texts."""
    try:
        found = _list_in(reply)
        if not all(isinstance(entry, str) and entry.strip() for entry in found):
            raise _Unread("not_a_list_of_texts")
        if not found:
            raise _Unread("no_claims")
    except _Unread as error:
        return Claims((), error.reason)
    return Claims(tuple(entry.strip() for entry in found), None)


def _list_in(reply: str | None) -> list[Any]:
    if reply is None:
        raise _Unread("no_reply")
    text = _THOUGHT.sub("", reply, count=1).strip()
    if not text:
        raise _Unread("empty")
    document = _parsed(text)
    if isinstance(document, dict) and len(document) == 1:
        (value,) = document.values()
        document = value if isinstance(value, list) else document
    if not isinstance(document, list):
        raise _Unread("not_a_list_of_objects")
    return document


def _parsed(text: str) -> Any:
    """The text as JSON; failing that, what stands from the first [ to the last ]."""
    try:
        return _strict(text)
    except ValueError:
        pass
    begin, end = text.find("["), text.rfind("]")
    if begin < 0 or end < begin:
        raise _Unread("not_json")
    try:
        return _strict(text[begin : end + 1])
    except ValueError as error:
        raise _Unread("not_json") from error


def _strict(text: str) -> Any:
    """NaN and Infinity are no JSON."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
