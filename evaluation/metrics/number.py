"""Reads the answer to a question for a number, such as PANDA's grade."""

import re


def read_number(answer: str) -> tuple[str | None, str | None]:
    """As demanded, and as read: the text is a whole number, or holds exactly one. Two different ones are nothing."""
    text = answer.strip()
    exact = text if re.fullmatch(r"\d+", text) else None
    found = set(re.findall(r"(?<![\w.,-])\d+(?![\w-]|[.,]\d)", text))
    return exact, found.pop() if len(found) == 1 else None
