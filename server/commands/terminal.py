"""Writes to the terminal: the server's text as text, never as control sequences."""

import codecs
import io
import json
import os
import sys
import unicodedata
from typing import Any

# What our own texts hold beyond ASCII; anything else that a terminal's encoding lacks becomes a question mark.
_IN_ASCII = {
    "µ": "u",
    "μ": "u",
    "×": "x",
    "·": "-",
    "•": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "’": "'",
    "“": '"',
    "”": '"',
    "²": "2",
}
_SPELLED_IN_ASCII = "eyepiece_spelled_in_ascii"


def accept_any_text() -> None:
    """Makes standard output and error take any text: a terminal whose encoding lacks a character must not end the
    command that has just done its work."""
    codecs.register_error(_SPELLED_IN_ASCII, _spelled_in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELLED_IN_ASCII)


def _spelled_in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(character, "?") for character in missing), error.end


def argument_text(argument: str) -> str:
    """A command's argument as it was typed in UTF-8, also where the locale knows ASCII alone; Python then keeps its
    bytes as lone surrogates, which no request can carry."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="replace")
    return argument


def printable(text: str) -> str:
    """`text` without control characters but newline and tab: an answer must not steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf"))


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output, for scripts."""
    print(json.dumps(document, ensure_ascii=not _takes_unicode(), indent=2))


def print_json_line(document: dict[str, Any]) -> None:
    """One of several JSON documents on standard output, each a line, shown at once."""
    print(json.dumps(document, ensure_ascii=not _takes_unicode()), flush=True)


def _takes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def print_now(text: str) -> None:
    """Text without a line end, shown at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
