"""Pairs from a judge: a language model behind any OpenAI-compatible endpoint chooses between two answers.

It is asked twice, with the answers in either order, because judges prefer places; a pair is kept where both choices
agree. It sees the question, the reference where there is one, and both answers, never the slide: a judge that sees no
slide knows no findings, so without references it can only judge what an answer claims to be.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.errors import TrainingError
from training.preference.pairs import Message, PairCounts, PreferencePair

ORIGIN: Final = "judge"
_TIMEOUT_S: Final = 120.0
_SYSTEM: Final = (
    "You compare two answers to a question about a microscope slide. Prefer the answer that agrees with the reference "
    "if one is given; else the one that claims no more than can be known and says what it cannot tell. Reply with one "
    "letter: A or B. Reply with = if neither is better."
)


class Candidates(BaseModel):
    """A line of what is to be judged: a question with two answers, and a reference where somebody has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...] = Field(min_length=1)
    slide: str
    region: str | None = None
    answers: tuple[str, str]
    reference: str | None = None


@dataclass(frozen=True)
class JudgeEndpoint:
    """`url` up to and with `/v1`. The key, where one is needed, is the environment's, never an argument."""

    url: str
    model: str
    key: str = ""


def read_candidates(path: Path) -> list[Candidates]:
    """The file's lines; raises TrainingError that names the first that is wrong."""
    if not path.is_file():
        raise TrainingError(f"There is no file {path}.")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(Candidates.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TrainingError(f"{path.name}, line {number}: {where}: {first['msg']}") from None
    return found


def judged_pairs(
    candidates: Iterable[Candidates], ask: Callable[[str, str], str], judge: str
) -> tuple[list[PreferencePair], PairCounts]:
    """`ask` takes a system and a user text and gives the reply; `judge` names it in the pairs' origin."""
    left_out: Counter[str] = Counter()
    pairs = list(_kept(candidates, ask, judge, left_out))
    return pairs, PairCounts(len(pairs), dict(left_out))


def ask_endpoint(endpoint: JudgeEndpoint, client: httpx.Client) -> Callable[[str, str], str]:
    """Asks it, at temperature 0; raises TrainingError when it does not answer."""

    def ask(system: str, text: str) -> str:
        body = {
            "model": endpoint.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 2_000,
        }
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        try:
            answer = client.post(
                f"{endpoint.url.rstrip('/')}/chat/completions", json=body, headers=headers, timeout=_TIMEOUT_S
            )
            answer.raise_for_status()
            return str(_content(answer.json()))
        except httpx.HTTPStatusError as error:
            raise TrainingError(f"The judge refused: HTTP {error.response.status_code}.") from None
        except (httpx.HTTPError, KeyError, IndexError, TypeError, json.JSONDecodeError):
            raise TrainingError("The judge does not answer as an OpenAI-compatible endpoint does.") from None

    return ask


def _content(body: Any) -> Any:
    return body["choices"][0]["message"]["content"]


def _kept(
    candidates: Iterable[Candidates], ask: Callable[[str, str], str], judge: str, left_out: Counter[str]
) -> Iterator[PreferencePair]:
    for one in candidates:
        if one.answers[0] == one.answers[1]:
            left_out["have two equal answers"] += 1
            continue
        first, second = (_choice(ask(_SYSTEM, _text(one, order))) for order in ((0, 1), (1, 0)))
        if first is None or second is None:
            left_out["got no readable choice from the judge"] += 1
        elif "=" in (first, second):
            left_out["are as good as each other to the judge"] += 1
        elif first == second:
            left_out["were judged by the place of the answer"] += 1
        else:
            better = "AB".index(first)
            yield PreferencePair(
                messages=one.messages,
                slide=one.slide,
                region=one.region,
                chosen=one.answers[better],
                rejected=one.answers[1 - better],
                origin=f"{ORIGIN}: {judge}",
            )


def _text(one: Candidates, order: tuple[int, int]) -> str:
    said = "\n".join(f"{message.role}: {message.content}" for message in one.messages)
    reference = f"\n\nReference: {one.reference}" if one.reference else ""
    return f"{said}{reference}\n\nA: {one.answers[order[0]]}\n\nB: {one.answers[order[1]]}"


def _choice(reply: str) -> str | None:
    """Exactly one of the three signs, as it was asked for; whatever a judge thought aloud before is taken off."""
    said = reply.rsplit("</think>", 1)[-1].strip().strip(".*()")
    return said if said in ("A", "B", "=") else None
