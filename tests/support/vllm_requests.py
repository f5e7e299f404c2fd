"""Slides and questions as the server sends them to vLLM."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

Messages = list[dict[str, Any]]


def npy(array: NDArray[Any]) -> str:
    """Base64 of the array's .npy file, as a request carries it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def slide_tokens(count: int, width: int, seed: int = 0) -> NDArray[np.float16]:
    """Seeded stand-ins for slide tokens: float16 [count, width] of unit variance, as after a layer norm."""
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float16)


def slide_part(encoded: object, **more: str) -> dict[str, Any]:
    """The content part that carries a slide (base64 of an .npy) or, with None and a uuid, refers to a cached one."""
    return {"type": "image_embeds", "image_embeds": encoded, **more}


def question(text: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """A user message: slide parts first, then the text as it stands."""
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
