"""The OpenAI dialect: chat requests in, chunks and completions out. It knows shapes, not HTTP."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.ask import Answer, Finished, Message, Token, Usage
from server.control_text import without_control_text
from server.errors import InvalidRequest, utf8_text
from server.metrics import Metrics
from server.questions import SamplingWishes, Stopwatch, timed_pieces
from server.slide_inputs import SlideInput

_MAX_MESSAGES = 200
_MAX_PARTS = 200
_SLIDE_SCHEME = "slide:"
# OpenAI's own bound; vLLM refuses an empty one.
_MAX_STOPS = 4
StopText = Annotated[str, Field(min_length=1, max_length=200)]


class SlideReference(BaseModel):
    """`{"id": "<slide id>"}`."""

    id: str


class ImageUrl(BaseModel):
    """`{"url": "slide:<slide id>"}`: for clients that only know images."""

    url: str


class ContentPart(BaseModel):
    """Text, or the slide that the chat is about."""

    type: Literal["text", "slide", "image_url"]
    text: str | None = None
    slide: SlideReference | None = None
    image_url: ImageUrl | None = None

    @property
    def slide_id(self) -> str | None:
        """The id of the slide it refers to, if it does.

        Raises:
            InvalidRequest: another URL than `slide:<id>`; nothing is ever fetched from a URL.
        """
        if self.type == "slide" and self.slide is not None:
            return self.slide.id
        if self.type != "image_url" or self.image_url is None:
            return None
        url = self.image_url.url
        if not url.startswith(_SLIDE_SCHEME):
            raise InvalidRequest("An image URL must be slide:<slide id>; upload the slide to POST /v1/slides first.")
        return url.removeprefix(_SLIDE_SCHEME)


class ChatMessage(BaseModel):
    """One message; its text parts are joined by line breaks."""

    role: str
    content: str | Annotated[list[ContentPart], Field(fail_fast=True, max_length=_MAX_PARTS)] | None = None

    @property
    def parts(self) -> list[ContentPart]:
        """The content as parts, whichever way it was written."""
        if isinstance(self.content, list):
            return self.content
        return [ContentPart(type="text", text=self.content or "")]


class StreamOptions(BaseModel):
    """Whether a last chunk carries the usage."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The part of the OpenAI request that this server understands; what would change the answer is refused."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=_MAX_MESSAGES, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=8192)
    max_completion_tokens: int | None = Field(None, ge=1, le=8192)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: StopText | Annotated[list[StopText], Field(fail_fast=True, max_length=_MAX_STOPS)] | None = None
    n: int = 1

    def wishes(self) -> SamplingWishes:
        """How tokens are to be chosen."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingWishes(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(stop),
        )

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


# Fields that clients send without meaning anything by them here; every other unknown field would be a silent lie.
_HARMLESS = frozenset({"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"})


def refuse_unsupported(chat: ChatRequest, model: str) -> None:
    """Check what the schema cannot.

    Raises:
        InvalidRequest: another model, several choices, or an option that would be ignored.
    """
    if chat.model != model:
        raise InvalidRequest(f"This server answers with the model {model}; see GET /v1/models.")
    if chat.n != 1:
        raise InvalidRequest("Ask for one choice (n=1).")
    unknown = {name for name, value in (chat.model_extra or {}).items() if value is not None} - _HARMLESS
    if unknown:
        names = ", ".join(sorted(name[:40] for name in unknown)[:5])
        raise InvalidRequest(utf8_text(f"These options are not supported: {names}."))


def slide_id_of(chat: ChatRequest) -> str:
    """The one slide that the chat is about, however often it is named.

    Raises:
        InvalidRequest: none, or several.
    """
    ids = {part.slide_id for message in chat.messages for part in message.parts} - {None}
    if len(ids) != 1:
        problem = "names no slide" if not ids else "names several slides"
        raise InvalidRequest(
            f'The chat {problem}; put one {{"type": "slide", "slide": {{"id": "…"}}}} part into a user message.'
        )
    return str(ids.pop())


def chat_messages(chat: ChatRequest, slide: SlideInput, max_chars: int) -> list[Message]:
    """The chat in the model's terms: user and assistant in turn, the slide before the first question.

    Raises:
        InvalidRequest: other roles, not in turn, no text, or a text beyond `max_chars`.
    """
    messages: list[Message] = []
    for index, message in enumerate(chat.messages):
        expected = "user" if index % 2 == 0 else "assistant"
        if message.role != expected:
            raise InvalidRequest(
                f"Message {index + 1} must come from the {expected}: user and assistant take turns, and the "
                "system prompt is the model's own."
            )
        text = _text_of(message, max_chars)
        if expected == "assistant":
            text = text.strip()  # as LLaVA's own dialogue does (serve/cli.py)
        messages.append(Message(expected, text, slide if index == 0 else None))
    if messages[-1].role != "user":
        raise InvalidRequest("The last message must be the user's question.")
    return messages


def _text_of(message: ChatMessage, max_chars: int) -> str:
    text = "\n".join(part.text or "" for part in message.parts if part.type == "text")
    if len(text) > max_chars:
        raise InvalidRequest(f"A message is longer than {max_chars} characters; shorten it.")
    cleaned = without_control_text(text)
    if not cleaned.strip():
        raise InvalidRequest("A message has no text; write a question beside the slide.")
    return cleaned


@dataclass(frozen=True)
class Completion:
    """The fields that all chunks of one answer share."""

    model: str
    notice: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One streamed chunk."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The last chunk when the client asked for the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(usage)}

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The answer in one piece; `notice` is ours, OpenAI clients ignore it."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(finished.usage)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "notice": self.notice,
        }


async def chat_chunks(
    answer: Answer, completion: Completion, wants_usage: bool, watch: Stopwatch, metrics: Metrics
) -> AsyncGenerator[dict[str, Any], None]:
    """The answer as OpenAI chunks."""
    yield completion.chunk({"role": "assistant", "content": ""})
    async with aclosing(timed_pieces(answer, watch, metrics)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Token):
                yield completion.chunk({"content": piece.text})
                continue
            yield completion.chunk({}, piece.reason)
            if wants_usage:
                yield completion.usage_chunk(piece.usage)


async def chat_completion(answer: Answer, completion: Completion, watch: Stopwatch, metrics: Metrics) -> dict[str, Any]:
    """The whole answer as one OpenAI completion."""
    text: list[str] = []
    async with aclosing(timed_pieces(answer, watch, metrics)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finished):
                return completion.whole("".join(text), piece)
            text.append(piece.text)
    raise AssertionError("an answer ends with Finished or raises; this is a bug")


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
