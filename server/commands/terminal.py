"""What goes to the terminal: text of the server as text, never as control sequences."""

import json
import sys
import unicodedata
from typing import Any


def printable(text: str) -> str:
    """`text` without control characters but newline and tab: an answer must not steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf"))


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output, for scripts."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def print_now(text: str) -> None:
    """Text without a line end, shown at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
