"""Step 7, ask: turns and a slide embedding become one vLLM request, its reply becomes tokens.

Every request carries the slide's tensor and its uuid, and every answer is checked: vLLM must have used exactly as
many slide tokens as it was sent. It knows HTTP and vLLM's wire format, not conversations or SSE.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from server.asking.answer_chunks import Chunk, read_chunk
from server.embeddings.slide_inputs import SlideInput, SlideInputs
from server.errors import (
    LanguageModelFailed,
    LanguageModelUnavailable,
    QuestionTooLong,
    SlideLost,
)
from server.telemetry.tracing import trace_headers
from server.to_the_end import stop, to_the_end

PLACEHOLDER = "<image>"
# Between two tokens, or before the first behind a full queue. A vLLM that is stopped in mid-stream may fall silent
# without closing the connection, so silence has to end an answer too.
_TIMEOUT = httpx.Timeout(connect=3.0, read=120.0, write=60.0, pool=60.0)
# Below the five seconds after which vLLM's server closes a connection that nothing comes through.
_KEEPALIVE_S = 3.0
# How long the end of the stream may take behind its last event, before the connection is given up.
_END_S = 1.0
# vLLM, or the balancer before it, closed a connection as a request was put on it: nothing was answered.
_BROKE_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


# A vLLM that is told to stop answers 500 to everything new while old answers end, and its load balancer needs up to
# three seconds to notice. Nothing was answered yet, so another replica may be asked.
_ANOTHER_MAY_ANSWER = frozenset({500, 502, 503})
_RETRY_WAITS_S = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Message:
    """One message of a chat; `slide` stands before the text that asks about it."""

    role: str
    text: str
    slide: SlideInput | None = None


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; None leaves vLLM's default."""

    max_tokens: int
    temperature: float
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    no_repeat_ngram_size: int | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts of one answer; `cached_tokens` were in vLLM's prefix cache."""

    prompt_tokens: int
    slide_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Token:
    """A piece of answer text."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The end of an answer: why it ended, and what it cost."""

    reason: str
    usage: Usage


class LanguageModel:
    """A vLLM server with our plugin, spoken to over HTTP."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        model: str,
        inputs: SlideInputs,
        retry_waits_s: Sequence[float] = _RETRY_WAITS_S,
    ) -> None:
        self._client = client
        self._model = model
        self._inputs = inputs
        self._retry_waits_s = retry_waits_s
        self._token_at = 0.0
        # Why questions are refused without being sent; set by who watches the engine.
        self.refusal: str | None = None

    def silent_for_s(self) -> float:
        """Seconds since something of any answer came."""
        return time.monotonic() - self._token_at

    def _note_token(self) -> None:
        self._token_at = time.monotonic()

    async def healthy(self) -> bool:
        """Whether the server answers its health check."""
        try:
            return (await self._client.get("/health", timeout=2.0)).status_code == 200
        except httpx.HTTPError:
            return False

    async def aclose(self) -> None:
        """Close the connection pool."""
        await self._client.aclose()

    async def open(
        self, tenant: str, messages: list[Message], sampling: Sampling, *, is_probe: bool = False
    ) -> "Answer":
        """Send the request; returns when vLLM has accepted it. The caller closes the answer. A probe is sent also while
        questions are refused.

        Sent again, a few times within seconds, when a replica refuses it before it has answered anything.

        Raises:
            QuestionTooLong: it does not fit the model's context.
            LanguageModelUnavailable, LanguageModelFailed: vLLM is away, or refuses.
        """
        if self.refusal is not None and not is_probe:
            raise LanguageModelUnavailable(self.refusal)
        slide = next((message.slide for message in messages if message.slide is not None), None)
        body = self._body(tenant, messages, sampling)
        headers = {"Content-Type": "application/json", **trace_headers()}
        if slide is not None:
            headers["X-Slide-Id"] = slide.route_key
        for wait_s in self._retry_waits_s:
            response, stack = await self._send(body, headers)
            if response.status_code not in _ANOTHER_MAY_ANSWER:
                break
            await to_the_end(stack.aclose())
            await asyncio.sleep(wait_s)
        else:
            response, stack = await self._send(body, headers)
        slide_tokens = slide.slide_tokens if slide else 0
        return Answer(await _accepted(response, stack), stack, slide_tokens, self._note_token)

    async def _send(self, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, AsyncExitStack]:
        """The response's head; closing the stack ends the request."""
        try:
            try:
                return await self._send_once(body, headers)
            except _BROKE_OFF:
                return await self._send_once(body, headers)
        except httpx.HTTPError as error:
            raise LanguageModelUnavailable("The language model does not answer; try again shortly.") from error

    async def _send_once(self, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, AsyncExitStack]:
        on_its_way = asyncio.Event()

        async def note(step: str, _: dict[str, Any]) -> None:
            if step == "http11.send_request_headers.started":
                on_its_way.set()

        extensions = {"trace": note}
        request = self._client.build_request(
            "POST", "/v1/chat/completions", content=body, headers=headers, extensions=extensions
        )
        sending = asyncio.ensure_future(self._client.send(request, stream=True))
        try:
            response = await asyncio.shield(sending)
        except asyncio.CancelledError:
            await to_the_end(_take_back(sending, on_its_way))
            raise
        stack = AsyncExitStack()
        stack.push_async_callback(response.aclose)
        return response, stack

    def _body(self, tenant: str, messages: list[Message], sampling: Sampling) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_message(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_salt": self._inputs.keyed_hash("salt", tenant),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        optional: dict[str, Any] = {"top_p": sampling.top_p, "seed": sampling.seed, "stop": list(sampling.stop) or None}
        if sampling.no_repeat_ngram_size is not None:  # vLLM hands these to our logits processor
            optional["vllm_xargs"] = {"no_repeat_ngram_size": sampling.no_repeat_ngram_size}
        body |= {name: value for name, value in optional.items() if value is not None}
        return orjson.dumps(body)


class Answer:
    """The reply to one request, read once. Closing it early makes vLLM stop generating."""

    def __init__(
        self, response: httpx.Response, stack: AsyncExitStack, slide_tokens: int, on_piece: Callable[[], None]
    ) -> None:
        """`on_piece` is called whenever something of the answer came."""
        self._response = response
        self._stack = stack
        self._slide_tokens = slide_tokens
        self._on_piece = on_piece

    async def close(self) -> None:
        """Drop the connection, also while being cancelled; vLLM aborts the request if it still runs."""
        await to_the_end(self._stack.aclose())

    async def pieces(self) -> AsyncGenerator[Token | Finished, None]:
        """Tokens as they come, then one `Finished`.

        Raises:
            SlideLost: vLLM used another number of slide tokens than it was sent.
            LanguageModelFailed, LanguageModelUnavailable: the stream broke off.
        """
        usage: Usage | None = None
        reason, begun = "stop", False
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                if chunk.has_progress:
                    self._on_piece()
                usage = self._checked_usage(chunk) or usage
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                    # A tokenizer that writes words with their space begins with one; LLaVA strips it (run_llava.py).
                    text = (choice.delta.content or "") if begun else (choice.delta.content or "").lstrip()
                    if text:
                        begun = True
                        yield Token(text)
        if usage is None:
            raise SlideLost("vLLM did not report its slide tokens; start it with --enable-prompt-tokens-details.")
        yield Finished(reason, usage)

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        try:
            async with aclosing(_lines(self._response)) as lines:
                async for line in lines:
                    if not line.startswith(b"data:"):
                        continue
                    payload = line[5:].strip()
                    if payload == b"[DONE]":
                        await to_the_end(_read_on(lines))
                        return
                    yield read_chunk(payload)
        except httpx.HTTPError as error:
            raise LanguageModelUnavailable("The language model went away; ask again.") from error
        raise LanguageModelFailed("The language model's answer ended early; ask again.")

    def _checked_usage(self, chunk: Chunk) -> Usage | None:
        reported = chunk.usage
        if reported is None or reported.prompt_tokens_details is None:
            return None
        details = reported.prompt_tokens_details
        slide_tokens = (details.multimodal_tokens or {}).get("image", 0)
        if slide_tokens != self._slide_tokens:
            raise SlideLost("The language model did not see the whole slide; ask again.")
        return Usage(
            prompt_tokens=reported.prompt_tokens,
            slide_tokens=slide_tokens,
            cached_tokens=details.cached_tokens or 0,
            completion_tokens=reported.completion_tokens or 0,
        )


def language_model_client(url: str, api_key: str) -> httpx.AsyncClient:
    """The connection pool to vLLM; proxies of the environment are not for it."""
    # A vLLM without key wants no header: "Bearer " with nothing behind it is not one that HTTP allows.
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.AsyncClient(
        base_url=url,
        timeout=_TIMEOUT,
        trust_env=False,
        headers=headers,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=_KEEPALIVE_S),
    )


def _message(message: Message) -> dict[str, Any]:
    if message.slide is None:
        return {"role": message.role, "content": message.text}
    slide = message.slide
    return {
        "role": message.role,
        "content": [
            {"type": "image_embeds", "image_embeds": slide.npy_base64, "uuid": slide.uuid},
            # The model's chat template decides whether its tokenizer needs the space (model_store.files.chunk_prefix).
            {"type": "text", "text": f"{PLACEHOLDER} \n{message.text}"},
        ],
    }


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Lines as server-sent events have them. httpx' own also end at U+0085 and U+2028, which answers may hold."""
    rest = b""
    async with aclosing(response.aiter_bytes()) as pieces:  # type: ignore[type-var]  # a generator, typed as iterator
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line
    if rest:
        yield rest


async def _read_on(lines: AsyncGenerator[bytes, None]) -> None:
    """To the end of a stream that has said all: only a connection that was read to its end can be used again."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_END_S):
            async for _ in lines:
                pass


async def _take_back(sending: "asyncio.Task[httpx.Response]", on_its_way: asyncio.Event) -> None:
    """End a request whose asker is gone. Not while httpcore (1.0.9) connects: it would keep the new connection, open
    and never to be used, for ever; connecting is bounded by its own timeout."""
    noticing = asyncio.ensure_future(on_its_way.wait())
    await asyncio.wait({sending, noticing}, timeout=_TIMEOUT.connect, return_when=asyncio.FIRST_COMPLETED)
    await stop(sending)
    await stop(noticing)
    if not sending.cancelled() and sending.exception() is None:
        await sending.result().aclose()


async def _accepted(response: httpx.Response, stack: AsyncExitStack) -> httpx.Response:
    """The response when vLLM has accepted the request; closes it when not."""
    try:
        await _raise_for_refusal(response)
    except httpx.HTTPError as error:
        await to_the_end(stack.aclose())
        raise LanguageModelUnavailable("The language model does not answer; try again shortly.") from error
    except BaseException:
        await to_the_end(stack.aclose())
        raise
    return response


async def _raise_for_refusal(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    text = (await response.aread())[:4_000].decode(errors="replace")
    if response.status_code == 400 and ("maximum context length" in text or "longer than the maximum" in text):
        raise QuestionTooLong("The question with its conversation is too long; shorten it or start a new one.")
    if response.status_code in (429, 503):
        raise LanguageModelUnavailable("The language model is busy; try again shortly.")
    raise LanguageModelFailed("The language model refused the request; the operator finds why in its log.")
