"""Stand-ins with the manners of the real thing: a vLLM server, and the encode that a worker is given."""

import asyncio
import base64
import io
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from encoders.caller import Caller
from encoders.types import SlideEmbedding, SlideFile, SlideWarning
from server.asking.vllm_client import VllmClient

SLIDE_ROWS, SLIDE_WIDTH = 32, 96


def sample_embedding(slide_id: str, encoder_id: str, *, value: float = 0.5, rows: int = SLIDE_ROWS) -> SlideEmbedding:
    """An embedding in the untrained model's shape."""
    tensors = {"slide_tokens": np.full((rows, SLIDE_WIDTH), value, np.float16)}
    return SlideEmbedding(slide_id, encoder_id, tensors, 7, "property", "2026-11-21T12:00:00+00:00")


def token_chunk(text: str, *, slide_tokens: int | None = None, finish: str | None = None) -> dict[str, Any]:
    """A chunk with text; with `slide_tokens` also a usage with details, which vLLM 0.32 sends only at the end."""
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    return chunk if slide_tokens is None else chunk | {"usage": usage(slide_tokens)}


def usage(
    slide_tokens: int, *, prompt_tokens: int = 50, completion_tokens: int = 3, cached: int = 16
) -> dict[str, Any]:
    """Token counts as vLLM reports them with --enable-prompt-tokens-details."""
    details = {"cached_tokens": cached, "multimodal_tokens": {"image": slide_tokens}}
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": details,
    }


def sse(*chunks: dict[str, Any], done: bool = True) -> list[bytes]:
    """The bytes of a streamed answer, one piece a chunk."""
    lines = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    return [*lines, b"data: [DONE]\n\n"] if done else lines


class ScriptedStream(httpx.AsyncByteStream):
    """A reply body that comes in pieces, may wait for `go_on` before piece `hold_before`, and knows it was closed."""

    def __init__(self, pieces: Sequence[bytes | Exception], hold_before: int | None = None) -> None:
        self._pieces = pieces
        self._hold_before = hold_before
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for index, piece in enumerate(self._pieces):
            if index == self._hold_before:
                await self.go_on.wait()
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self.closed.set()


class FakeVllm:
    """A vLLM server behind a mock transport. It answers every question with `words`, using the slide tokens that it
    was sent, until `script` says otherwise; it remembers the requests and the streams."""

    def __init__(self, *words: str) -> None:
        self.words = words or ("No ", "tumour.")
        self.script: Callable[[httpx.Request], httpx.Response] | None = None
        self.hold_before: int | None = None
        self.is_healthy = True
        self.is_slow_to_say_so: type[httpx.TimeoutException] | None = None
        self.requests: list[httpx.Request] = []
        self.streams: list[ScriptedStream] = []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON bodies of the requests so far."""
        return [orjson.loads(request.content) for request in self.requests]

    def client(self) -> VllmClient:
        """A client that reaches this server only."""
        return VllmClient("http://vllm.test", transport=httpx.MockTransport(self.handle))

    def answer_with(self, *pieces: bytes | Exception, status: int = 200) -> None:
        """Answer every following question with these pieces."""
        self.script = lambda _: self.stream(pieces, status)

    def stream(self, pieces: Sequence[bytes | Exception], status: int = 200) -> httpx.Response:
        """A response that streams `pieces`."""
        self.streams.append(ScriptedStream(pieces, self.hold_before))
        return httpx.Response(status, stream=self.streams[-1], headers={"Content-Type": "text/event-stream"})

    def handle(self, request: httpx.Request) -> httpx.Response:
        """The transport's handler."""
        if request.url.path == "/health" and self.is_slow_to_say_so is not None:
            raise self.is_slow_to_say_so("It did not say in time.")
        if request.url.path == "/health":
            return httpx.Response(200 if self.is_healthy else 503)
        self.requests.append(request)
        if self.script is not None:
            return self.script(request)
        count = slide_tokens_sent(orjson.loads(request.content))
        chunks = [token_chunk(word) for word in self.words]
        return self.stream(sse(*chunks, {"choices": [], "usage": usage(count)}))


def slide_parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The slides in a request to vLLM."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return [part for content in contents for part in content if part["type"] == "image_embeds"]


def slide_tokens_sent(body: dict[str, Any]) -> int:
    """How many slide tokens a request holds."""
    files = [base64.b64decode(part["image_embeds"]) for part in slide_parts(body)]
    return sum(len(np.load(io.BytesIO(file), allow_pickle=False)) for file in files)


@dataclass
class FakeEncode:
    """What a worker calls instead of the pipeline: reports progress, writes features, returns an embedding.

    With `error` it raises that instead; with `hold` it waits until it is released or cancelled.
    """

    encoder_id: str
    error: Exception | None = None
    hold: bool = False
    warnings: tuple[SlideWarning, ...] = ()
    calls: int = 0
    slides: list[SlideFile] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    saw_cancel: threading.Event = field(default_factory=threading.Event)

    def __call__(
        self,
        slide: SlideFile,
        mpp_override: float | None,
        features_path: Path,
        caller: Caller,
    ) -> SlideEmbedding:
        self.calls += 1
        self.slides.append(slide)
        caller.on_progress("tile", 1, 1)
        caller.on_warnings(self.warnings)
        caller.on_progress("encode_tiles", 0, 7)
        caller.on_progress("encode_tiles", 7, 7)
        self.started.set()
        while self.hold and not self.release.wait(0.01):
            if caller.cancelled.is_set():
                self.saw_cancel.set()
                raise RuntimeError("cancelled")
        if self.error is not None:
            raise self.error
        features_path.write_bytes(b"features")
        caller.on_progress("encode_slide", 1, 1)
        return sample_embedding(slide.slide_id, self.encoder_id)
