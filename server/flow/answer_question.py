"""A question is answered: embedding (memory, Redis, else store) → vLLM → tokens → events. Both dialects ask here."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError

from encoders.errors import StoredFileDamaged
from model_store.errors import EyepieceError
from server.asking.conversations import Conversations
from server.asking.fit_conversation import open_dropping_old_turns, turns_beyond_budget
from server.asking.language_model import Answer, Message, Token
from server.asking.questions import (
    OpenAnswer,
    Question,
    SamplingOptions,
    Stopwatch,
    conversation_messages,
    done_data,
    notice_data,
    question_text,
    sampling,
    timed_pieces,
)
from server.asking.served_models import ServedModel, ServedModels
from server.embeddings.slide_inputs import SlideInput
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import Event
from server.slides.slide_record import SlideRecord
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import span

log = structlog.get_logger(__name__)
# A Redis that is stopped does not refuse, it is silent.
_REMEMBER_WITHIN_S = 3.0


@dataclass(frozen=True)
class OpenChat:
    """An answer that vLLM has accepted for a client who sends all turns, and the slide that it is about."""

    answer: Answer
    record: SlideRecord


@dataclass(frozen=True)
class AnswerQuestion:
    """Asks language models about slides."""

    slides: SlideCatalogue
    encodes: QueueEncode
    conversations: Conversations
    models: ServedModels
    metrics: Metrics
    max_question_chars: int

    async def open(self, tenant: str, slide_id: str, question: Question) -> OpenAnswer:
        """Find the embedding and hand question, earlier turns and slide to vLLM; the caller streams or closes it.

        Raises:
            NotFound, SlideNotReady, SlideFailed, WrongConversation, …: nothing was asked.
        """
        watch, model = Stopwatch(), self.models.named(question.model)
        text = question_text(question.text, self.max_question_chars, model.control_text)
        record = await self.slides.require(tenant, slide_id, model.name)
        conversation = await self.conversations.continue_or_start(tenant, slide_id, question.conversation_id)
        slide = await self._embedding(record, model, watch)
        how = sampling(question.options, model.manifest)

        async def open_without(turns: int) -> Answer:
            messages = conversation_messages(slide, conversation, text, model.control_text, turns)
            return await model.language_model.open(tenant, messages, how)

        beyond = turns_beyond_budget(conversation, text, slide.slide_tokens, how.max_tokens, model.manifest.llm)
        opened = await open_dropping_old_turns(open_without, len(conversation.turns), beyond)
        left_out = opened.turns_left_out
        return OpenAnswer(opened.answer, model, record, conversation, text, watch, left_out, question.request_id)

    async def open_chat(
        self,
        tenant: str,
        model: ServedModel,
        slide_id: str,
        messages: Callable[[SlideInput], list[Message]],
        options: SamplingOptions,
        watch: Stopwatch,
    ) -> OpenChat:
        """The same for a client that sends all turns itself, as `messages` puts them around the slide; nothing is
        left out and nothing is remembered.

        Raises:
            NotFound, SlideNotReady, SlideFailed, …: nothing was asked.
        """
        record = await self.slides.require(tenant, slide_id, model.name)
        slide = await self._embedding(record, model, watch)
        answer = await model.language_model.open(tenant, messages(slide), sampling(options, model.manifest))
        return OpenChat(answer, record)

    async def stream(self, opened: OpenAnswer) -> AsyncGenerator[Event, None]:
        """`notice`, `token` events as they come, then `done`; raises when the answer breaks off, and remembers it when
        not."""
        yield Event("notice", notice_data(opened))
        text = ""
        async with aclosing(timed_pieces(opened.answer, opened.model.name, opened.watch, self.metrics)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Token):
                    text += piece.text
                    yield Event("token", {"text": piece.text})
                    continue
                yield Event("done", done_data(opened, text, piece.usage, await self._remember(opened, text)))

    async def _embedding(self, record: SlideRecord, model: ServedModel, watch: Stopwatch) -> SlideInput:
        """The slide's embedding as the model's vLLM gets it, and how long that took."""
        with span("find embedding"):
            slide = await self._found_embedding(record, model)
        watch.cache_ms = watch.elapsed_ms()
        return slide

    async def _found_embedding(self, record: SlideRecord, model: ServedModel) -> SlideInput:
        with contextlib.suppress(StoredFileDamaged):  # the cache has deleted it: it is made again below
            slide = await model.asked_slides.find(record)
            if slide is not None:
                return slide
        await self.encodes.refuse_unencoded(record, model.name)

    async def _remember(self, opened: OpenAnswer, answer: str) -> int | None:
        """Keep the turn, unless the slide was deleted while it was answered; its number, None when it is not kept. An
        answer is worth more than its being remembered: whatever fails here is said beside it."""
        record = opened.record
        try:
            async with asyncio.timeout(_REMEMBER_WITHIN_S):
                if await self.slides.find(record.tenant, record.id) is None:
                    return None
                return await self.conversations.add_turn(record.tenant, opened.conversation, opened.as_turn(answer))
        except (EyepieceError, RedisError, TimeoutError) as error:
            log.warning("answer_not_remembered", error=type(error).__name__)
            return None
