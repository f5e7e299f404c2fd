"""What a model counts of a slide, in words for people."""

from collections.abc import Iterable
from typing import Any


def pieces_of(models: Iterable[dict[str, Any]], name: str | None = None) -> str:
    """`tiles`, or `regions` for a model of levels: that of this name, or the first of the server's `models`.

    `tiles` for one that the server does not serve any more.
    """
    asked = next((model for model in models if name in (None, model["id"])), {})
    return "regions" if asked.get("kind") == "levels" else "tiles"
