"""A question in the model's terms, an answer while it streams, and the `done` event."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from encoders.regions.outline import Outline
from model_store.errors import EyepieceError
from model_store.manifest import Manifest
from server.asking.answer_schema import AnswerSchema
from server.asking.answer_warnings import AnswerWarning, conversation_warnings
from server.asking.control_text import ControlText
from server.asking.conversations import Conversation, Turn
from server.asking.language_model import Finished, Message, OpenedAnswer, Sampling, Token
from server.asking.scope import scope_of, scope_warnings
from server.asking.served_models import ServedModel
from server.embeddings.slide_inputs import SlideInput
from server.errors import InvalidRequest, QuestionTooLong, SlideLost
from server.slides.region_record import RegionRecord
from server.slides.slide_record import SlideRecord, now
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import mark


@dataclass(frozen=True)
class SamplingOptions:
    """How the client wants tokens chosen; None leaves the model's default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: AnswerSchema | None = None


@dataclass(frozen=True)
class Question:
    """What a client asks about one slide; `request_id` names the request in the log.

    `region` is a region's id or what is drawn, `WHOLE` for the slide, None for what the conversation was about last.
    With `choices` the answer is one of them."""

    text: str
    conversation_id: str | None = None
    options: SamplingOptions = SamplingOptions()
    model: str | None = None
    request_id: str | None = None
    region: str | Outline | None = None
    choices: tuple[str, ...] = ()


@dataclass
class Stopwatch:
    """Times of one question, in milliseconds since it arrived."""

    started: float = field(default_factory=time.perf_counter)
    cache_ms: float | None = None
    time_to_first_token_ms: float | None = None

    def elapsed_ms(self) -> float:
        """Since the start."""
        return round((time.perf_counter() - self.started) * 1000, 1)


@dataclass(frozen=True)
class OpenAnswer:
    """An answer that vLLM has accepted and that is about to stream.

    Of the conversation's turns the model was given those about `region` (None is the whole slide), `earlier`, but for
    the `turns_left_out` oldest, which did not fit into its context or its training."""

    answer: OpenedAnswer
    model: ServedModel
    record: SlideRecord
    conversation: Conversation
    question: str
    watch: Stopwatch
    turns_left_out: int = 0
    request_id: str | None = None
    region: RegionRecord | None = None
    earlier: tuple[Turn, ...] = ()

    @property
    def warnings(self) -> tuple[AnswerWarning, ...]:
        """What is doubtful about it, known before its first token."""
        of_turns = conversation_warnings(self.model.manifest, len(self.earlier) + 1, self.turns_left_out)
        others = len(self.conversation.turns) - len(self.earlier)
        return (*scope_warnings(self.record, self.region, others), *of_turns, *self.answer.doubts)

    def as_turn(self, answer: str) -> Turn:
        """The turn, once the whole answer is there."""
        return Turn(
            question=self.question,
            answer=answer,
            model=self.model.name,
            encoder_id=self.record.encoder_id,
            request_id=self.request_id,
            scope=scope_of(self.region),
            given=tuple(turn.number for turn in self.earlier[self.turns_left_out :]),
            created_at=now(),
        )


def question_text(text: str, max_chars: int, control: ControlText) -> str:
    """The question as the model gets it; blanks around it stay, as they do in LLaVA's evaluation.

    Raises:
        QuestionTooLong, InvalidRequest: too much of it, or nothing.
    """
    if len(text) > max_chars:
        raise QuestionTooLong(f"The question is longer than {max_chars} characters; shorten it.")
    cleaned = control.removed_from(text)
    if not cleaned.strip():
        raise InvalidRequest("The question is empty; ask something about the slide.")
    return cleaned


def sampling(options: SamplingOptions, manifest: Manifest) -> Sampling:
    """The client's options over the model's defaults; vLLM refuses more tokens than its context holds.

    JSON repeats its punctuation and its names: rules against repetition would leave no token that a schema allows."""
    defaults = manifest.llm.generation
    may_repeat = options.schema is not None
    return Sampling(
        max_tokens=min(options.max_tokens or defaults.max_tokens, manifest.llm.max_model_len),
        temperature=defaults.temperature if options.temperature is None else options.temperature,
        top_p=defaults.top_p if options.top_p is None else options.top_p,
        seed=options.seed,
        stop=options.stop,
        top_k=defaults.top_k,
        no_repeat_ngram_size=None if may_repeat else defaults.no_repeat_ngram_size,
        generated_repetition_penalty=None if may_repeat else defaults.generated_repetition_penalty,
        schema=options.schema,
    )


def conversation_messages(
    slide: SlideInput, conversation: Conversation, question: str, control: ControlText, turns_left_out: int = 0
) -> list[Message]:
    """Earlier turns without the oldest, and the question; the slide stands in the first message, so its prefix stays
    cached. LLaVA's own dialogue strips an answer before it goes on (serve/cli.py).

    Earlier questions may have been asked of another model, whose control text is not this one's.
    """
    turns = conversation.turns[turns_left_out:]
    texts = [text for turn in turns for text in (control.removed_from(turn.question), control.cleaned(turn.answer))]
    return [
        Message("user" if index % 2 == 0 else "assistant", text, slide if index == 0 else None)
        for index, text in enumerate([*texts, question])
    ]


async def timed_pieces(
    answer: OpenedAnswer, model: str, watch: Stopwatch, metrics: Metrics
) -> AsyncGenerator[Token | Finished, None]:
    """The pieces of an answer, measured; leaving early closes the request to vLLM, leaving after `Finished` is not
    early."""
    outcome = "cancelled"
    metrics.questions_running.labels(model).inc()
    try:
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                if watch.time_to_first_token_ms is None:
                    _note_first_token(model, watch, metrics)
                if isinstance(piece, Finished):
                    outcome = "answered"
                    metrics.answer_s.labels(model).observe(watch.elapsed_ms() / 1000)
                yield piece
    except EyepieceError as error:
        outcome = error.code
        if isinstance(error, SlideLost):
            metrics.slide_tokens_lost.labels(model).inc()
        raise
    finally:
        metrics.questions_running.labels(model).dec()
        metrics.questions.labels(model, outcome).inc()
        if watch.cache_ms is not None:
            metrics.cache_s.observe(watch.cache_ms / 1000)
        await answer.close()


def _note_first_token(model: str, watch: Stopwatch, metrics: Metrics) -> None:
    watch.time_to_first_token_ms = watch.elapsed_ms()
    metrics.time_to_first_token_s.labels(model).observe(watch.time_to_first_token_ms / 1000)
    if watch.cache_ms is not None:
        waited_ms = watch.time_to_first_token_ms - watch.cache_ms
        metrics.language_model_first_token_s.labels(model).observe(waited_ms / 1000)
    mark("first token")


def notice_data(opened: OpenAnswer) -> dict[str, Any]:
    """The data of the `notice` event, the first of every answer: whose it is, and what must be known to read it."""
    return {
        "notice": opened.model.manifest.notice,
        "model": opened.model.name,
        "encoder_id": opened.record.encoder_id,
        "scope": scope_of(opened.region).model_dump(),
        "warnings": [warning.as_data for warning in opened.warnings],
    }


def done_data(opened: OpenAnswer, text: str, finished: Finished, turn: int | None) -> dict[str, Any]:
    """The data of the `done` event, and the whole body with `stream: false`.

    `turn` is the number under which it was remembered; without one there is no id of a conversation that was to begin
    with it.
    """
    goes_on = turn is not None or opened.conversation.turns
    usage = finished.usage
    return {
        "answer": text,
        "choices": [{"text": it.text, "probability": it.probability} for it in finished.choices],
        "conversation_id": opened.conversation.id if goes_on else None,
        "turn": turn,
        "remembered": turn is not None,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "slide_tokens": usage.slide_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "timing": {
            "cache_ms": opened.watch.cache_ms,
            "time_to_first_token_ms": opened.watch.time_to_first_token_ms,
            "total_ms": opened.watch.elapsed_ms(),
        },
        **notice_data(opened),
    }
