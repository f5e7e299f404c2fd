"""A line of the audit log, and the chain that the lines of one writer form: each holds the digest of the one before.

    {"n": 7, "writer": "9f2c…", "before": <hash of line 6>, "at": "…", "action": "…", …, "hash": "…"}

`hash` is the SHA-256 of the line's bytes without its own hash, so it covers the one before and the line's number: a
line that is changed, removed or moved does not fit any more. Bytes are compared and no values, so that a later release,
whose lines say more, still follows the lines of this one.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import orjson

# Before the first line of a chain.
NOTHING = "0" * 64
BEGIN = "audit.begin"
END = "audit.end"
Phase = Literal["begun", "done"]
_HASHED = re.compile(rb'(\{.+),"hash":"([0-9a-f]{64})"\}\n')


@dataclass(frozen=True)
class AuditEvent:
    """Who did what to which slide, why, and how it ended. It holds no answer and no file name.

    `action` is a method and the template of an address, or a command; `outcome` the HTTP status, where it is known.
    `begun` is the number of the line that said, before anything was changed, that it would be.
    """

    at: datetime
    action: str
    phase: Phase = "done"
    outcome: int | None = None
    tenant: str | None = None
    who: str | None = None
    slide: str | None = None
    about: dict[str, str] = field(default_factory=dict)
    purpose: str | None = None
    request_id: str | None = None
    begun: int | None = None
    question: str | None = None
    erased: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditLine:
    """An event in its chain, as it was read: `said` is all of the line, `hash` what it says of itself."""

    n: int
    writer: str
    before: str
    hash: str
    said: dict[str, Any]
    text: bytes

    @property
    def action(self) -> str:
        """What was done."""
        return str(self.said.get("action", ""))


def link(event: AuditEvent, writer: str, n: int, before: str) -> tuple[bytes, str]:
    """The event as line `n` behind the line whose hash is `before`, with its line break; and its own hash."""
    told = {name: value for name, value in vars(event).items() if value is not None and value != {}}
    body = orjson.dumps({"n": n, "writer": writer, "before": before} | told, option=orjson.OPT_UTC_Z)
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + f',"hash":"{digest}"}}\n'.encode(), digest


def read_line(text: bytes) -> AuditLine | None:
    """A line as it was written; None when it is none, or says another hash than its own."""
    found = _HASHED.fullmatch(text)
    if found is None:
        return None
    body, digest = found[1] + b"}", found[2].decode()
    if hashlib.sha256(body).hexdigest() != digest:
        return None
    try:
        said = orjson.loads(body)
        return AuditLine(int(said["n"]), str(said["writer"]), str(said["before"]), digest, said, text)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):  # somebody's own line, with a right hash
        return None


@dataclass
class Chain:
    """How far a writer's chain has been followed."""

    n: int = 0
    before: str = NOTHING
    has_ended: bool = False

    def follow(self, line: AuditLine) -> str | None:
        """What is wrong with the next line, None when it fits; the chain goes on behind it either way."""
        wrong = None
        if self.has_ended:
            wrong = "it comes after the end of its chain"
        elif line.n != self.n:
            wrong = f"line {self.n} of its writer was expected, and it is line {line.n}: lines were removed or moved"
        elif line.before != self.before:
            wrong = "the line before it is not the one that was written"
        self.n, self.before, self.has_ended = line.n + 1, line.hash, line.action == END
        return wrong
