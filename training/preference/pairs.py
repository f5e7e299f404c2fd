"""Preference pairs in an open format: a JSON object a line.

    {"messages": [{"role": "user", "content": "Is there a tumour?"}], "slide": "…", "region": null,
     "chosen": "Yes", "rejected": "No", "origin": "truth"}

`messages` are the conversation so far: users and assistants by turns, a user's first and last, the slide in the first
of them. `slide`, and `region` if only that was shown, name an embedding (training.preference.slide_rows).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import TrainingError


class Message(BaseModel):
    """What somebody said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant"]
    content: str


class PreferencePair(BaseModel):
    """Two answers to the last of `messages`, of which `chosen` is preferred; `origin` says by what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...] = Field(min_length=1)
    slide: str
    region: str | None = None
    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)
    origin: str

    @model_validator(mode="after")
    def _takes_turns(self) -> "PreferencePair":
        roles = [message.role for message in self.messages]
        if roles != ["user" if turn % 2 == 0 else "assistant" for turn in range(len(roles))] or roles[-1] != "user":
            raise ValueError("messages must be of users and assistants by turns, a user's first and last")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same")
        return self


@dataclass(frozen=True)
class PairCounts:
    """How many pairs came of a source, and what was left out, by reason."""

    pairs: int
    left_out: dict[str, int]

    def text(self) -> str:
        """For the person at the terminal."""
        reasons = "".join(f"\n  {count} {reason}" for reason, count in self.left_out.items() if count)
        return f"{self.pairs} pairs." + (f" Left out:{reasons}" if reasons else "")

    @property
    def as_data(self) -> dict[str, object]:
        """For a document."""
        return asdict(self)


def user(text: str) -> Message:
    """A user's message."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """An assistant's message."""
    return Message(role="assistant", content=text)


def read_pairs(path: Path) -> list[PreferencePair]:
    """The file's pairs, in order.

    Raises:
        TrainingError: there is no such file, no pair in it, or a line is not one; it names the line and the fault.
    """
    if not path.is_file():
        raise TrainingError(f"There is no file {path}; `python -m training pairs` writes one.")
    pairs = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                pairs.append(_parsed(line, path, number))
    if not pairs:
        raise TrainingError(f"{path} holds no pair.")
    return pairs


def write_pairs(path: Path, pairs: Iterable[PreferencePair]) -> int:
    """Writes the file whole or not at all; how many pairs it has."""
    partial, count = path.with_name(f".partial-{path.name}"), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(pair.model_dump_json() + "\n")
            count += 1
    partial.rename(path)
    return count


def pairs_digest(pairs: Sequence[PreferencePair]) -> str:
    """SHA-256 of what they say, in order."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair.model_dump(), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _parsed(line: str, path: Path, number: int) -> PreferencePair:
    try:
        return PreferencePair.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{path.name}, line {number}: {where} {first['msg']}".replace(":  ", ": ")) from None
