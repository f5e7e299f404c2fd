"""Shapes of the OpenAI dialect's answers. `server.api.chat` writes them as plain dictionaries, one for every token; the
tests hold what it writes against these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store.manifest import Reads
from server.api.contract.events import AnswerDoubt
from server.asking.scope import Scope
from server.upkeep.readiness import ModelState

_ALL_SENT = ConfigDict(json_schema_serialization_defaults_required=True)
# Not sent at all in most chunks, never sent as null.
_OFTEN_ABSENT: Any = None


class ChatUsage(BaseModel):
    """Tokens of one answer."""

    prompt_tokens: int = Field(description="Tokens of the question, earlier turns and the slide.")
    completion_tokens: int = Field(description="Answer.")
    total_tokens: int
    prompt_tokens_details: "ChatPromptTokens"


class ChatPromptTokens(BaseModel):
    """Part of the prompt's tokens."""

    cached_tokens: int = Field(description="Tokens from the language model's prefix cache.")


class ChatAnswer(BaseModel):
    """The message of the model."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """The one answer."""

    index: Literal[0]
    message: ChatAnswer
    logprobs: None
    finish_reason: str | None = Field(description="`stop`, or `length` when `max_tokens` ended it.", examples=["stop"])


class ChatCompletion(BaseModel):
    """A whole answer, as OpenAI's API gives it; `notice`, `scope` and `warnings` are Eyepiece's own."""

    model_config = _ALL_SENT

    id: str = Field(examples=["chatcmpl-5f0c2b7f3a1d4e6f8a9b0c1d"])
    object: Literal["chat.completion"]
    created: int = Field(description="Seconds since 1970.")
    model: str = Field(examples=["demo"])
    notice: str = Field(description="Research-use notice and the model's limits; show it to users.")
    scope: Scope = Field(description="What of the slide it is about; show it beside the answer.")
    warnings: list[AnswerDoubt] = Field(description="What is doubtful about this answer; empty when nothing is.")
    choices: list[ChatChoice]
    usage: ChatUsage


class ChatDelta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] = Field(_OFTEN_ABSENT, description="In the first chunk.")
    content: str = Field(_OFTEN_ABSENT, description="Text to append; absent in the last chunk.")


class ChatChunkChoice(BaseModel):
    """The one answer, continued."""

    index: Literal[0]
    delta: ChatDelta
    logprobs: None
    finish_reason: str | None = Field(description="Null until the last chunk.")


class ChatCompletionChunk(BaseModel):
    """A piece of a streamed answer. With `stream_options.include_usage` a last one has no choices but the `usage`."""

    id: str = Field(description="The same in all chunks of an answer.")
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    notice: str = Field(
        description="Research-use notice and the model's limits, in every chunk; the first comes before any text."
    )
    scope: Scope = Field(_OFTEN_ABSENT, description="What of the slide it is about: in the first chunk.")
    warnings: list[AnswerDoubt] = Field(
        _OFTEN_ABSENT, description="What is doubtful about this answer: in the first chunk, when something is."
    )
    choices: list[ChatChunkChoice]
    usage: ChatUsage = Field(_OFTEN_ABSENT)


class ModelTopic(BaseModel):
    """Something that a model was taught to answer."""

    name: str = Field(description="For people to choose from.", examples=["grade"])
    example: str = Field(description="A question about it.", examples=["What grade is the tumour?"])


class Model(BaseModel):
    """A model that this server answers with."""

    id: str = Field(description="The value for the field `model`.", examples=["demo"])
    object: Literal["model"]
    created: int = Field(description="Always 0; OpenAI clients expect the field.")
    owned_by: str
    title: str = Field(description="Display name.")
    quantization: str = Field(description="How the language model's weights are stored; `none` for 16 bits.")
    licence: str
    notice: str = Field(description="Sent with every answer; show it before the first question.")
    kind: Reads = Field(
        description="What of a slide it reads: `tiles` of one size, or the `levels` of a hierarchy, which are regions, "
        "their patches, and the cells in them.",
        examples=["tiles"],
    )
    topics: list[ModelTopic] = Field(
        description="What it can be asked, as its manifest says; empty where that was not said. Beyond them it answers "
        "all the same."
    )
    trained_turns: int | None = Field(
        description="How many turns the longest conversation had that it was trained on; null where unknown. Of a "
        "longer conversation that the server keeps, the model gets that many of the newest turns, with the warning "
        "`turns_left_out`; one that the client sends is answered whole, with `beyond_trained_turns`.",
        examples=[8],
    )
    state: ModelState = Field(description="`unavailable` while its language model does not answer.", examples=["ok"])


class ModelList(BaseModel):
    """All models of this server."""

    object: Literal["list"]
    data: list[Model]
