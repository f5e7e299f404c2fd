"""A question is answered: embedding (memory, Redis, else store) → vLLM → tokens → events. Both dialects ask here."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError

from encoders.errors import StoredFileDamaged
from encoders.regions.outline import Outline
from model_store.errors import EyepieceError
from server.asking.choices import checked_choices, choose, most_tokens
from server.asking.conversations import Conversations
from server.asking.fit_conversation import open_dropping_old_turns, turns_beyond_budget, turns_beyond_training
from server.asking.language_model import Answer, Message, OpenedAnswer, Token
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
from server.asking.scope import WHOLE, name_of, scope_of
from server.asking.served_models import ServedModel, ServedModels
from server.embeddings.slide_inputs import SlideInput
from server.errors import NotFound, RegionNotReady
from server.flow.draw_region import DrawRegion
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import Event
from server.slides.region_record import RegionRecord, SlideRegion
from server.slides.slide_record import SlideRecord
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import span

log = structlog.get_logger(__name__)
# A Redis that is stopped does not refuse, it is silent.
_REMEMBER_WITHIN_S = 3.0


@dataclass(frozen=True)
class OpenChat:
    """An answer that vLLM has accepted for a client who sends all turns, and what it is about."""

    answer: Answer
    record: SlideRecord
    region: RegionRecord | None


@dataclass(frozen=True)
class AnswerQuestion:
    """Asks language models about slides."""

    slides: SlideCatalogue
    encodes: QueueEncode
    regions: DrawRegion
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
        choices = checked_choices(question.choices, model.control_text)
        record = await self.slides.require(tenant, slide_id, model.name)
        conversation = await self.conversations.continue_or_start(tenant, slide_id, question.conversation_id)
        asked = conversation.named_scope if question.region is None else question.region
        slide, region = await self._embedding(record, model, None if asked == WHOLE else asked, watch)
        record = await self._as_encoded(record, model)
        how = sampling(question.options, model.manifest)
        # A region of the conversation that was drawn anew for another encoding is the same to whoever asks.
        kept = [conversation.named_scope] if question.region is None else []
        earlier = conversation.about(name_of(scope_of(region)), *kept)

        async def open_without(turns: int) -> OpenedAnswer:
            messages = conversation_messages(slide, earlier, text, model.control_text, turns)
            if choices:
                return await choose(model.language_model, tenant, messages, choices)
            return await model.language_model.open(tenant, messages, how)

        untrained = turns_beyond_training(len(earlier.turns), model.manifest.abilities.trained_turns)
        room = most_tokens(choices) if choices else how.max_tokens
        beyond = turns_beyond_budget(earlier, text, slide.slide_tokens, room, model.manifest.llm)
        opened = await open_dropping_old_turns(open_without, len(earlier.turns), max(untrained, beyond))
        return OpenAnswer(
            answer=opened.answer,
            model=model,
            record=record,
            conversation=conversation,
            question=text,
            watch=watch,
            turns_left_out=opened.turns_left_out,
            request_id=question.request_id,
            region=region,
            earlier=earlier.turns,
        )

    async def open_chat(
        self,
        tenant: str,
        model: ServedModel,
        about: tuple[str, str | Outline | None],
        messages: Callable[[SlideInput], list[Message]],
        options: SamplingOptions,
        watch: Stopwatch,
    ) -> OpenChat:
        """The same for a client that sends all turns itself, as `messages` puts them around the slide; nothing is
        left out and nothing is remembered. `about` is a slide's id and a region of it, None for the whole slide.

        Raises:
            NotFound, SlideNotReady, SlideFailed, …: nothing was asked.
        """
        slide_id, asked = about
        record = await self.slides.require(tenant, slide_id, model.name)
        slide, region = await self._embedding(record, model, asked, watch)
        record = await self._as_encoded(record, model)
        answer = await model.language_model.open(tenant, messages(slide), sampling(options, model.manifest))
        return OpenChat(answer, record, region)

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
                yield Event("done", done_data(opened, text, piece, await self._remember(opened, text)))

    async def _as_encoded(self, record: SlideRecord, model: ServedModel) -> SlideRecord:
        """The record as it is now that there is an embedding. One that was read before the encode had ended lacks what
        that found doubtful."""
        if record.tile_count is not None:
            return record
        now = await self.slides.require(record.tenant, record.id, model.name)
        return now if now.encoder_id == record.encoder_id else record  # the embedding is not that of what is wanted now

    async def _embedding(
        self, record: SlideRecord, model: ServedModel, asked: str | Outline | None, watch: Stopwatch
    ) -> tuple[SlideInput, RegionRecord | None]:
        """The embedding of what is asked about, as the model's vLLM gets it, and how long that took."""
        with span("find embedding"):
            if asked is None:
                slide, region = await self._found_embedding(record, model), None
            else:
                region = await self.regions.wanted(record, model, asked)
                slide = await self._made_embedding(SlideRegion(record, region.id), region, model)
        watch.cache_ms = watch.elapsed_ms()
        return slide, region

    async def _made_embedding(self, region: SlideRegion, drawn: RegionRecord, model: ServedModel) -> SlideInput:
        with contextlib.suppress(StoredFileDamaged):  # as below
            found = await model.asked_slides.find(region)
            if found is not None:
                return found
        await self.regions.make(region, drawn)
        found = await model.asked_slides.find(region)
        if found is None:
            raise RegionNotReady("The region was dropped while it was made; ask again.", retry_after_s=1)
        return found

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
                number = await self.conversations.add_turn(record.tenant, opened.conversation, opened.as_turn(answer))
                # Behind it: a deletion that ended before does not know of the turn, one that comes takes it along.
                if await self.slides.find(record.tenant, record.id) is not None:
                    return number
                with contextlib.suppress(NotFound):
                    await self.conversations.forget(record.tenant, opened.conversation.id)
                return None
        except (EyepieceError, RedisError, TimeoutError) as error:
            log.warning("answer_not_remembered", error=type(error).__name__)
            return None
