"""The OpenAI dialect: chat requests in, chunks and completions out. It knows shapes, not HTTP."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from server.api.region_shapes import RegionName, RegionShape
from server.api.response_format import ResponseFormat, wanted_schema
from server.asking.answer_warnings import AnswerWarning
from server.asking.beams import BEAM_OPTIONS, no_beams
from server.asking.control_text import ControlText
from server.asking.language_model import Answer, Finished, Message, Token, Usage
from server.asking.questions import SamplingOptions, Stopwatch, timed_pieces
from server.asking.scope import WHOLE, RegionScope, SlideScope
from server.embeddings.slide_inputs import SlideInput
from server.errors import InvalidRequest, utf8_text
from server.telemetry.metrics import Metrics

_MAX_MESSAGES = 200
_MAX_PARTS = 200
_MOST_ID_CHARS = 64
# The second is for clients that pass on nothing but http(s) and data: addresses. RFC 2606 reserves `.invalid`: it leads
# nowhere. No address is ever fetched.
_SLIDE_URL_PREFIXES = ("slide:", "https://slides.invalid/")
# OpenAI's own bound; vLLM refuses an empty one.
_MAX_STOPS = 4
# Anything else may change what is asked for, and is refused; null asks for nothing.
_NOTHING_ELSE: JsonDict = {"additionalProperties": {"type": "null"}}
StopText = Annotated[str, Field(min_length=1, max_length=200)]


class SlideReference(BaseModel):
    """`{"id": "<slide id>"}`, or a region of the slide: `{"id": "<slide id>", "region": "<region id>"}`."""

    # A region by another name would be the whole slide without a word: refused below, in words of its own.
    model_config = ConfigDict(extra="allow", json_schema_extra=_NOTHING_ELSE)

    id: str = Field(
        description="The slide's id, or `dicom:` and the UID of its series.",
        examples=["5e" * 32, "dicom:1.2.826.0.1.3680043.8.498.2"],
    )
    region: RegionName | RegionShape | None = Field(
        None,
        description="What of the slide the chat is about: a region's id, or a region as it is drawn, which is made "
        f"then. Left out, or `{WHOLE}`, it is the whole slide.",
        examples=["reg_" + "0c" * 16],
    )


class ImageUrl(BaseModel):
    """`{"url": "slide:<slide id>"}`: for clients that only know images."""

    url: str = Field(
        description="`slide:<slide id>` or `https://slides.invalid/<slide id>`, with `#<region id>` behind it for a "
        "region; it is never fetched."
    )


class ChatContentPart(BaseModel):
    """Text, or the slide that the chat is about."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`text`, `slide` or `image_url`, and then the field of that name.", examples=["text"])
    text: str | None = Field(None, examples=["What kind of tissue is this?"])
    slide: SlideReference | None = None
    image_url: ImageUrl | None = None

    @property
    def about(self) -> SlideReference | None:
        """The slide it refers to, if it does.

        Raises:
            InvalidRequest: another URL than a slide's; nothing is ever fetched from a URL.
        """
        if self.type == "slide" and self.slide is not None:
            return self.slide
        if self.type != "image_url" or self.image_url is None:
            return None
        for prefix in _SLIDE_URL_PREFIXES:
            if self.image_url.url.startswith(prefix):
                slide_id, _, region = self.image_url.url.removeprefix(prefix).partition("#")
                return SlideReference(id=slide_id, region=region[:_MOST_ID_CHARS] or None)
        raise InvalidRequest(
            "An image URL must be slide:<slide id> or https://slides.invalid/<slide id>; upload the slide to POST "
            "/v1/slides first."
        )


class ChatMessage(BaseModel):
    """One message; its text parts are joined by line breaks. Fields that would be ignored are refused."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_NOTHING_ELSE)

    role: str = Field(
        description="`user` and `assistant` alternate, starting and ending with `user`; `system` only without text.",
        examples=["user"],
    )
    content: str | Annotated[list[ChatContentPart], Field(fail_fast=True, max_length=_MAX_PARTS)] | None = None

    @property
    def parts(self) -> list[ChatContentPart]:
        """The content as parts, whichever way it was written."""
        if isinstance(self.content, list):
            return self.content
        return [ChatContentPart(type="text", text=self.content or "")]

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing: no slide, and no text but white space."""
        return all(part.type == "text" and not (part.text or "").strip() for part in self.parts)


class ChatStreamOptions(BaseModel):
    """What a stream has beside the answer."""

    include_usage: bool | None = Field(False, description="Adds a last chunk with the token counts.")


class ChatCompletionRequest(BaseModel):
    """The part of OpenAI's request that this server understands. Other options of OpenAI's are taken at the value that
    changes nothing, and refused by name at any other."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_NOTHING_ELSE)

    model: str = Field(description="The `id` of a model of `GET /v1/models`.", examples=["demo"])
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=_MAX_MESSAGES,
        fail_fast=True,
        description="The whole conversation, with one slide in a user message; nothing is stored.",
    )
    stream: bool | None = Field(False, description="True: stream server-sent events. False: one JSON object.")
    stream_options: ChatStreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=8192, description="Older name of `max_completion_tokens`.")
    max_completion_tokens: int | None = Field(None, ge=1, le=8192)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: StopText | Annotated[list[StopText], Field(fail_fast=True, max_length=_MAX_STOPS)] | None = None
    response_format: ResponseFormat | None = Field(
        None,
        description="With `json_schema` the answer is JSON that follows the schema, whole unless `finish_reason` is "
        "`length`. The model is not shown the schema: ask for what is in it.",
    )
    n: int | None = Field(
        1,
        description="Only 1 is supported: there are no beams and no other answers to choose from.",
        json_schema_extra={"minimum": 1, "maximum": 1},
    )

    def sampling_options(self) -> SamplingOptions:
        """How tokens are to be chosen.

        Raises:
            InvalidRequest: a response format that is not to be had.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingOptions(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(stop),
            schema=wanted_schema(self.response_format, has_stops=bool(stop)),
        )

    @property
    def last_question(self) -> str:
        """The text of the last message of a user's; empty when there is none."""
        asked = [message for message in self.messages if message.role == "user"]
        return "\n".join(part.text or "" for part in asked[-1].parts) if asked else ""

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


# Fields that clients send without meaning anything by them here; every other unknown field would be a silent lie.
_HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "parallel_tool_calls",  # says how tools are called, and there are none
    }
)
# Options that are not implemented, with the values that ask for nothing but what is done anyway. The second group is
# vLLM's own.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"], []),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_p": (0,),
    "top_k": (0, -1),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "use_beam_search": (False,),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "early_stopping": (False,),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
}
# Fields of a message, as of the options: what an OpenAI answer holds beside its text when it holds nothing.
_NEUTRAL_IN_MESSAGES: dict[str, tuple[Any, ...]] = {
    "tool_calls": ([],),
    "refusal": ("",),
    "annotations": ([],),
    "reasoning_content": ("",),
    "reasoning": ("",),
}
_HARMLESS_IN_MESSAGES = frozenset({"name", "id"})
_PART_TYPES = frozenset({"text", "slide", "image_url"})
_PARTS_THAT_NEED = {"slide": "slide", "image_url": "image_url"}


def refuse_unsupported(chat: ChatCompletionRequest) -> None:
    """Check what the schema cannot.

    Raises:
        InvalidRequest: several choices, or something that would be ignored.
    """
    beams = BEAM_OPTIONS & _meaningful({"n": chat.n, **(chat.model_extra or {})}, _NEUTRAL, _HARMLESS)
    if beams:
        raise no_beams(beams)
    _refuse_meaningful("options", chat.model_extra, _NEUTRAL, _HARMLESS)
    for message in chat.messages:
        _refuse_meaningful("fields of a message", message.model_extra, _NEUTRAL_IN_MESSAGES, _HARMLESS_IN_MESSAGES)
        for part in message.parts:
            _refuse_unknown_part(part)


def _refuse_meaningful(
    what: str, fields: dict[str, Any] | None, neutral: dict[str, tuple[Any, ...]], harmless: frozenset[str]
) -> None:
    unknown = _meaningful(fields or {}, neutral, harmless)
    if unknown:
        names = ", ".join(sorted(name[:40] for name in unknown)[:5])
        raise InvalidRequest(utf8_text(f"These {what} are not supported: {names}. Leave them out."))


def _meaningful(fields: dict[str, Any], neutral: dict[str, tuple[Any, ...]], harmless: frozenset[str]) -> set[str]:
    return {
        name
        for name, value in fields.items()
        if value is not None and name not in harmless and not _is_one_of(value, neutral.get(name, ()))
    }


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Python takes False for 0 and True for 1; JSON does not."""
    return any(value == it and isinstance(value, bool) == isinstance(it, bool) for it in values)


def _refuse_unknown_part(part: ChatContentPart) -> None:
    if part.type not in _PART_TYPES:
        raise InvalidRequest(
            utf8_text(f"Content parts of the type {part.type[:40]!r} are not supported; send text, slide or image_url.")
        )
    if "region" in (part.model_extra or {}):
        raise InvalidRequest(
            'A region stands beside the slide\'s id: {"type": "slide", "slide": {"id": "…", "region": "…"}}.'
        )
    if part.slide is not None:
        _refuse_meaningful("fields of a slide", part.slide.model_extra, {}, frozenset())
    needed = _PARTS_THAT_NEED.get(part.type)
    if needed is not None and getattr(part, needed) is None:
        raise InvalidRequest(f"A content part of the type {part.type!r} needs the field {needed!r}.")


def slide_of(chat: ChatCompletionRequest) -> tuple[str, RegionShape | str | None]:
    """The one slide that the chat is about, however often it is named, and the region of it; None is all of it.

    Raises:
        InvalidRequest: none, several, or several regions: earlier turns would be taken for being about the same.
    """
    named = [found for message in chat.messages for part in message.parts if (found := part.about) is not None]
    ids = {it.id for it in named}
    if len(ids) != 1:
        problem = "names no slide" if not ids else "names several slides"
        raise InvalidRequest(
            f'The chat {problem}; put one {{"type": "slide", "slide": {{"id": "…"}}}} part into a user message.'
        )
    region = None if named[0].region == WHOLE else named[0].region
    if any((None if it.region == WHOLE else it.region) != region for it in named):
        raise InvalidRequest("The chat is about several parts of the slide; begin a new one for another region.")
    return ids.pop(), region


def chat_messages(
    chat: ChatCompletionRequest, slide: SlideInput, max_chars: int, control: ControlText
) -> list[Message]:
    """The chat in the model's terms: user and assistant in turn, the slide before the first question.

    An assistant's turn may be empty, for a model may answer nothing. Clients send an empty system message where a user
    wrote none, and an empty assistant's turn last, where the answer is to come: both say nothing and are left out.

    Raises:
        InvalidRequest: other roles, not in turn, no text, or a text beyond `max_chars`.
    """
    spoken = list(chat.messages)
    if spoken[0].role in ("system", "developer") and spoken[0].is_blank:
        del spoken[0]
    if spoken and spoken[-1].role == "assistant" and spoken[-1].is_blank:
        del spoken[-1]
    messages: list[Message] = []
    for index, message in enumerate(spoken):
        expected = "user" if index % 2 == 0 else "assistant"
        if message.role != expected:
            raise InvalidRequest(
                f"Message {index + 1} must come from the {expected}: user and assistant take turns, and the "
                "system prompt is the model's own."
            )
        text = _text_of(message, max_chars, control)
        if expected == "assistant":
            text = text.strip()  # as LLaVA's own dialogue does (serve/cli.py)
        messages.append(Message(expected, text, slide if index == 0 else None))
    if not messages or messages[-1].role != "user":
        raise InvalidRequest("The last message must be the user's question.")
    return messages


def _text_of(message: ChatMessage, max_chars: int, control: ControlText) -> str:
    text = "\n".join(part.text or "" for part in message.parts if part.type == "text")
    if len(text) > max_chars:
        raise InvalidRequest(f"A message is longer than {max_chars} characters; shorten it.")
    cleaned = control.removed_from(text)
    if message.role == "user" and not cleaned.strip():
        raise InvalidRequest("A message has no text; write a question beside the slide.")
    return cleaned


@dataclass(frozen=True)
class Completion:
    """The fields that all chunks of one answer share."""

    model: str
    notice: str
    scope: SlideScope | RegionScope
    warnings: tuple[AnswerWarning, ...] = ()
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def first_chunk(self) -> dict[str, Any]:
        """The chunk before any text, with what the answer is about and all that is doubtful about it."""
        doubts = {"warnings": [it.as_data for it in self.warnings]} if self.warnings else {}
        return {**self.chunk({"role": "assistant", "content": ""}), "scope": self.scope.model_dump(), **doubts}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One streamed chunk."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The last chunk when the client asked for the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(usage)}

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The answer in one piece; `notice`, `scope` and `warnings` are ours, OpenAI clients ignore them."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.reason}
        doubts = [it.as_data for it in self.warnings]
        answer = {"choices": [choice], "usage": _usage(finished.usage)}
        return {**self._head("chat.completion"), "scope": self.scope.model_dump(), "warnings": doubts, **answer}

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
    yield completion.first_chunk()
    async with aclosing(timed_pieces(answer, completion.model, watch, metrics)) as pieces:
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
    finished: Finished | None = None
    async with aclosing(timed_pieces(answer, completion.model, watch, metrics)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finished):
                finished = piece
            else:
                text.append(piece.text)
    assert finished is not None, "an answer ends with Finished or raises"
    return completion.whole("".join(text), finished)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
