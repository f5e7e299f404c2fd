"""Slides and questions as the server sends them to vLLM."""

import asyncio
import base64
import io
from typing import Any

import numpy as np
from fakes import FakeVllm
from numpy.typing import NDArray

from server.asking.language_model import LanguageModel, Message, Sampling
from server.embeddings.slide_inputs import SlideInputs

Messages = list[dict[str, Any]]
# Laid over what the server sends, for a reply that is compared token by token.
ONE_REPLY_WITH_IDS = {"stream": False, "stream_options": None, "return_token_ids": True}


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


def body_from_the_server(messages: list[Message], how: Sampling) -> dict[str, Any]:
    """What the API sends to vLLM for these messages, but for the model's name, which `VllmServer.post` knows."""
    fake = FakeVllm()

    async def send() -> None:
        model = LanguageModel(fake.client(), "toy", SlideInputs("digest", "secret"))
        await (await model.open("tenant", messages, how)).close()
        await model.aclose()

    asyncio.run(send())
    body = fake.bodies[0]
    del body["model"]
    return body
