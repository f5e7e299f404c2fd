"""Slides to ask about, uploaded as features so that none has to be drawn or tiled; what API and vLLM are asked."""

import io
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

import h5py
import httpx
import numpy as np
import orjson

from encoders.embedding_file import from_bytes
from loadtests.answer_streams import Request
from loadtests.load_model import TILE_FEATURE_DIM
from loadtests.own_server import TENANT, OwnServer
from server.asking.language_model import LanguageModel, Message, Sampling
from server.asking.vllm_client import VllmClient
from server.embeddings.cache import CachedEmbedding
from server.embeddings.slide_inputs import SlideInputs
from server.errors import LanguageModelFailed

_TILES, _TILE_PX = 64, 224
_READY_WITHIN_S = 300.0


# Whoever asks vLLM directly. Another tenant than the API's, so that neither warms the other's prefixes.
BARE_TENANT = "bare"
# Before a follow-up: what was asked, and what was answered.
Turns = tuple[str, ...]


@dataclass(frozen=True)
class LoadSlide:
    """A slide that is ready, and its embedding as the API reads it from its cache."""

    id: str
    cached: CachedEmbedding


def upload_slides(server: OwnServer, count: int) -> list[LoadSlide]:
    """New slides, no two runs' alike, encoded."""
    with httpx.Client(base_url=server.api_url, timeout=120.0, trust_env=False) as client:
        ids = [_upload(client, _features_file(secrets.randbits(32))) for _ in range(count)]
        for slide_id in ids:
            _wait_until_ready(client, slide_id)
    return [LoadSlide(it, _embedding(server, it)) for it in ids]


def api_request(
    server: OwnServer,
    slide: LoadSlide,
    question: str,
    conversation: str | None = None,
    max_tokens: int | None = None,
) -> Request:
    """A question to the API."""
    content = {"question": question, "temperature": 0, "conversation_id": conversation, "max_tokens": max_tokens}
    body = orjson.dumps({name: value for name, value in content.items() if value is not None})
    return Request(f"{server.api_url}/v1/slides/{slide.id}/questions", body)


def chat_request(server: OwnServer, slide: LoadSlide, question: str, max_tokens: int) -> Request:
    """The same question to the API as an OpenAI client asks it."""
    parts = [{"type": "slide", "slide": {"id": slide.id}}, {"type": "text", "text": question}]
    content = {
        "model": server.model.manifest.name,
        "messages": [{"role": "user", "content": parts}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    return Request(f"{server.api_url}/v1/chat/completions", orjson.dumps(content))


async def bare_request(server: OwnServer, slide: LoadSlide, question: str, turns: Turns = ()) -> Request:
    """The same question to vLLM: what the API itself would send, taken from it on its way out."""
    sent: list[httpx.Request] = []

    def keep(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(400)  # not one that is tried again

    spec, inputs = server.model.manifest.llm, SlideInputs(server.model.llm_digest, server.llm_key)
    first = inputs.make(BARE_TENANT, slide.cached)
    messages = [
        Message("assistant" if number % 2 else "user", text, None if number else first)
        for number, text in enumerate((*turns, question))
    ]
    client = VllmClient(server.llm_url, server.llm_key, httpx.MockTransport(keep))
    with suppress(LanguageModelFailed):  # so the 400 is understood
        how = Sampling(max_tokens=spec.generation.max_tokens, temperature=0.0)
        await LanguageModel(client, spec.served_name, inputs).open(BARE_TENANT, messages, how)
    asked = sent[0]
    headers = {name: asked.headers[name] for name in ("authorization", "x-slide-id") if name in asked.headers}
    return Request(str(asked.url), asked.content, headers)


def _features_file(seed: int) -> bytes:
    rng, side = np.random.default_rng(seed), int(_TILES**0.5)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["features"] = rng.standard_normal((_TILES, TILE_FEATURE_DIM)).astype(np.float32)
        file["coords"] = np.array([(x, y) for y in range(side) for x in range(side)], np.int64) * _TILE_PX
        file["coords"].attrs.update(
            patch_size=_TILE_PX, patch_size_level0=_TILE_PX, level0_magnification=20, target_magnification=20, overlap=0
        )
    return buffer.getvalue()


def _upload(client: httpx.Client, content: bytes) -> str:
    answer = client.post("/v1/slides", files={"file": ("features.h5", content)})
    answer.raise_for_status()
    return str(answer.json()["id"])


def _wait_until_ready(client: httpx.Client, slide_id: str) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while (slide := client.get(f"/v1/slides/{slide_id}").json())["status"] != "ready":
        if slide["status"] == "failed" or time.monotonic() > deadline:
            raise RuntimeError(f"the slide is {slide['status']}: {slide['error']}")
        time.sleep(0.05)


def _embedding(server: OwnServer, slide_id: str) -> CachedEmbedding:
    (path,) = (server.data_dir / "store/tenants" / TENANT / "slides" / slide_id / "embeddings").iterdir()
    content = path.read_bytes()
    return CachedEmbedding(from_bytes(content), content)
