"""Step 7, ask: turns and a slide embedding become one vLLM request, its reply becomes tokens.

Every request carries the slide's tensor and its uuid, and every answer is checked: vLLM must have used exactly as
many slide tokens as it was sent. It knows HTTP and vLLM's wire format, not conversations or SSE.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import httpx
import orjson
import structlog

from server.asking.answer_chunks import Chunk, ChunkReader
from server.asking.answer_schema import AnswerSchema
from server.asking.answer_scores import (
    FIRST_TOKEN,
    SCORE_ANSWER,
    AnswerScores,
    FirstToken,
    read_first_token,
    read_scores,
)
from server.asking.answer_warnings import AnswerWarning
from server.asking.vllm_client import VllmClient
from server.embeddings.slide_inputs import SlideInput, SlideInputs
from server.errors import (
    LanguageModelFailed,
    LanguageModelUnavailable,
    QuestionTooLong,
    SlideLost,
)
from server.telemetry.tracing import trace_headers

log = structlog.get_logger(__name__)
# How long the end of the stream may take behind its last event, before the connection is given up.
_END_S = 1.0
# While questions are refused, one that was sent before is waited for no longer than this without a sign of it.
_SILENT_S = 5.0
# vLLM, or the balancer before it, closed a connection as a request was put on it: nothing was answered.
_BROKE_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


# A vLLM that is told to stop answers 500 to everything new while old answers end, and its load balancer needs up to
# three seconds to notice. Nothing was answered yet, so another replica may be asked.
_ANOTHER_MAY_ANSWER = frozenset({500, 502, 503})
_RETRY_WAITS_S = (0.5, 1.0, 2.0)
_ANSWERS = "/v1/chat/completions"
# Why an answer ends that `max_tokens` ended, as OpenAI says it: what there is of it is not whole.
CUT_OFF = "length"
Health = Literal["well", "silent", "away"]


@dataclass(frozen=True)
class Message:
    """One message of a chat; `slide` stands before the text that asks about it."""

    role: str
    text: str
    slide: SlideInput | None = None


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; None asks for nothing. n-grams and the last penalty look at the answer alone."""

    max_tokens: int
    temperature: float
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    no_repeat_ngram_size: int | None = None
    generated_repetition_penalty: float | None = None
    schema: AnswerSchema | None = None


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
class ChoiceShare:
    """A choice, and its share of the probability of all choices."""

    text: str
    probability: float


@dataclass(frozen=True)
class Finished:
    """The end of an answer: why it ended, what it cost, and the choices that it was one of."""

    reason: str
    usage: Usage
    choices: tuple[ChoiceShare, ...] = ()


class OpenedAnswer(Protocol):
    """An answer that is about to be read: one that is generated, or a choice."""

    @property
    def doubts(self) -> tuple[AnswerWarning, ...]:
        """What is doubtful about it, known before its text."""

    def pieces(self) -> AsyncGenerator[Token | Finished, None]:
        """Text as it comes, then one `Finished`."""

    async def close(self) -> None:
        """Give up what was not read."""


class LanguageModel:
    """A vLLM server with our plugin, spoken to over HTTP."""

    def __init__(
        self,
        client: VllmClient,
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

    def give_up_silent(self) -> None:
        """While questions are refused, tell also those who asked before and have heard nothing for a while."""
        if self.refusal is not None:
            self._client.give_up_silent(_SILENT_S)

    async def health(self) -> Health:
        """What the server says to its health check: `silent` is one that is there and takes its time, as a busy
        machine's does."""
        try:
            response = await self._client.get("/health", timeout_s=2.0)
            await response.aread()
            await response.aclose()
            return "well" if response.status_code == 200 else "away"
        except httpx.TimeoutException:
            return "silent"
        except httpx.HTTPError:
            return "away"

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
        fields = {"stream": True, "stream_options": {"include_usage": True}, **_choice_of_tokens(sampling)}
        response = await self._accepted(tenant, messages, fields, is_probe=is_probe)
        return Answer(response, _slide_tokens(messages), self._note_token, sampling.schema)

    async def score(self, tenant: str, messages: list[Message]) -> AnswerScores:
        """How likely the last message is, an answer, token by token; the tokens before it are among them.

        Raises:
            SlideLost: vLLM used another number of slide tokens than it was sent.
            QuestionTooLong, LanguageModelUnavailable, LanguageModelFailed: as `open`.
        """
        return read_scores(await self._reply(tenant, messages, SCORE_ANSWER), _slide_tokens(messages))

    async def first_token(self, tenant: str, messages: list[Message]) -> FirstToken:
        """How likely each of the likeliest first tokens is of an answer to these messages.

        Raises:
            SlideLost, QuestionTooLong, LanguageModelUnavailable, LanguageModelFailed: as `score`.
        """
        return read_first_token(await self._reply(tenant, messages, FIRST_TOKEN), _slide_tokens(messages))

    async def _reply(self, tenant: str, messages: list[Message], fields: Mapping[str, Any]) -> bytes:
        """The whole reply to a request that does not stream."""
        response = await self._accepted(tenant, messages, fields)
        try:
            content = await response.aread()
        except httpx.HTTPError as error:
            raise LanguageModelUnavailable("The language model went away; ask again.") from error
        finally:
            await response.aclose()
        self._note_token()
        return content

    async def _accepted(
        self, tenant: str, messages: list[Message], fields: Mapping[str, Any], *, is_probe: bool = False
    ) -> httpx.Response:
        """The response to a chat once vLLM has accepted it; raises as `open`."""
        if self.refusal is not None and not is_probe:
            raise LanguageModelUnavailable(self.refusal)
        body = self._body(tenant, messages, fields)
        headers = {"Content-Type": "application/json", **trace_headers()}
        slide = _slide_of(messages)
        if slide is not None:
            headers["X-Slide-Id"] = slide.route_key
        for wait_s in self._retry_waits_s:
            response = await self._send(body, headers, is_probe)
            if response.status_code not in _ANOTHER_MAY_ANSWER:
                break
            await response.aclose()
            await asyncio.sleep(wait_s)
        else:
            response = await self._send(body, headers, is_probe)
        return await _accepted(response)

    async def _send(self, body: bytes, headers: dict[str, str], is_probe: bool) -> httpx.Response:
        """The response's head; closing the response ends the request."""
        patient = {"patient": is_probe}  # the watch itself decides how long a probe may take
        try:
            try:
                return await self._client.post(_ANSWERS, body, headers, patient)
            except _BROKE_OFF:
                # A server that closed one connection that was kept may have closed them all.
                return await self._client.post(_ANSWERS, body, headers, {**patient, "new_connection": True})
        except httpx.HTTPError as error:
            log.warning("language_model_not_reached", reason=type(error).__name__)
            raise LanguageModelUnavailable("The language model does not answer; try again shortly.") from error

    def _body(self, tenant: str, messages: list[Message], fields: Mapping[str, Any]) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_message(message) for message in messages],
            "cache_salt": self._inputs.keyed_hash("salt", tenant),
            **fields,
        }
        return orjson.dumps(body)


class Answer:
    """The reply to one request, read once. Closing it early makes vLLM stop generating."""

    doubts: tuple[AnswerWarning, ...] = ()

    def __init__(
        self,
        response: httpx.Response,
        slide_tokens: int,
        on_piece: Callable[[], None],
        schema: AnswerSchema | None = None,
    ) -> None:
        """`on_piece` is called whenever something of the answer came; the whole of it is held against the `schema`."""
        self._schema = schema
        self._response = response
        self._slide_tokens = slide_tokens
        self._on_piece = on_piece
        self._reason = "stop"
        self._usage: Usage | None = None
        self._begun = False

    async def close(self) -> None:
        """Drop the connection; vLLM aborts the request if it still runs. Never waits (vllm_transport.py), so it is
        whole even while the task is being cancelled."""
        await self._response.aclose()

    async def pieces(self) -> AsyncGenerator[Token | Finished, None]:
        """Text as it comes, then one `Finished`. Tokens that came together are one piece.

        Raises:
            SlideLost: vLLM used another number of slide tokens than it was sent.
            LanguageModelFailed, LanguageModelUnavailable: the stream broke off, or the answer is not by its schema.
        """
        chunks = ChunkReader()
        whole: list[str] = []
        try:
            async with aclosing(self._response.aiter_raw()) as received:  # type: ignore[type-var]  # a generator
                async for data in received:
                    text, failure = self._take(chunks.read(data))
                    if text and self._schema is not None:
                        text = self._schema.as_json(text)
                        whole.append(text)
                    if text:
                        yield Token(text)
                    if failure is not None:
                        raise failure
                    if chunks.is_done:
                        await _read_on(received)
                        break
        except httpx.HTTPError as error:
            raise LanguageModelUnavailable("The language model went away; ask again.") from error
        if not chunks.is_done:
            raise LanguageModelFailed("The language model's answer ended early; ask again.")
        if self._usage is None:
            raise SlideLost("vLLM did not report its slide tokens; start it with --enable-prompt-tokens-details.")
        if self._schema is not None and self._reason != CUT_OFF:
            self._schema.require_followed("".join(whole))
        yield Finished(self._reason, self._usage)

    def _take(self, chunks: Iterator[Chunk]) -> tuple[str, LanguageModelFailed | None]:
        """The text of the chunks, and why they end early: what was said before is still passed on.

        Raises:
            SlideLost: nothing of them is.
        """
        text = ""
        try:
            for chunk in chunks:
                if chunk.has_progress:
                    self._on_piece()
                self._usage = self._checked_usage(chunk) or self._usage
                for choice in chunk.choices:
                    self._reason = choice.finish_reason or self._reason
                    text += choice.delta.content or ""
                # A tokenizer that writes words with their space begins with one; LLaVA strips it (run_llava.py).
                if text and not self._begun:
                    text = text.lstrip()
                    self._begun = bool(text)
        except LanguageModelFailed as error:
            return text, error
        return text, None

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


def _slide_of(messages: Sequence[Message]) -> SlideInput | None:
    return next((message.slide for message in messages if message.slide is not None), None)


def _slide_tokens(messages: Sequence[Message]) -> int:
    slide = _slide_of(messages)
    return slide.slide_tokens if slide else 0


def _message(message: Message) -> dict[str, Any]:
    if message.slide is None:
        return {"role": message.role, "content": message.text}
    slide = message.slide
    return {
        "role": message.role,
        "content": [
            {"type": "image_embeds", "image_embeds": slide.npy_base64, "uuid": slide.uuid},
            # Where the slide's rows stand, the model's chat template says (model_store.contracts.prompt).
            {"type": "text", "text": message.text},
        ],
    }


def _choice_of_tokens(sampling: Sampling) -> dict[str, Any]:
    """Everything that a checkpoint's generation_config.json could change is said: vLLM would take it from there."""
    said: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "top_k": -1 if sampling.top_k is None else sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    processors = {  # vLLM hands these to our logits processor
        "generated_repetition_penalty": sampling.generated_repetition_penalty,
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size,
    }
    asked = {name: value for name, value in processors.items() if value is not None}
    optional = {
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "vllm_xargs": asked or None,
        "response_format": None if sampling.schema is None else _json_by(sampling.schema),
    }
    return said | {name: value for name, value in optional.items() if value is not None}


def _json_by(schema: AnswerSchema) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema.schema, "strict": True}}


async def _read_on(received: AsyncIterator[bytes]) -> None:
    """To the end of a stream that has said all: only a connection that was read to its end can be used again."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_END_S):
            async for _ in received:
                pass


async def _accepted(response: httpx.Response) -> httpx.Response:
    """The response when vLLM has accepted the request; closes it when not."""
    try:
        await _raise_for_refusal(response)
    except httpx.HTTPError as error:
        await response.aclose()
        raise LanguageModelUnavailable("The language model does not answer; try again shortly.") from error
    except BaseException:
        await response.aclose()
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
