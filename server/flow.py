"""The story: how a slide gets ready, and how a question about it is answered.

prepare_slide     upload → look inside → keep → queue           (then the worker: encoders.pipeline)
answer_question   embedding (memory, Redis, else store) → vLLM
stream_answer     tokens → events
delete_slide      all of it, gone
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError

from encoders.errors import StoredFileDamaged
from encoders.precomputed.features_kind import features_kind
from model_store.errors import EyepieceError
from server.ask import Answer, Token
from server.errors import NotFound, Overloaded, SlideFailed, SlideNotReady
from server.fit_conversation import open_what_fits, turns_beyond_budget
from server.parts import Parts
from server.progress import Event
from server.questions import (
    OpenAnswer,
    Question,
    Stopwatch,
    conversation_messages,
    done_data,
    question_text,
    sampling,
    timed_pieces,
)
from server.slide_inputs import SlideInput
from server.slide_source import find_entry, publish_source, source_is_whole
from server.slides import (
    FEATURES_VENDOR,
    Slide,
    SlideRecord,
    Status,
    UnreadableRecord,
    describe,
    describe_unreadable,
)
from server.stored_parts import remove_parts
from server.tracing import span
from server.upload import ReceivedSlide, display_name, receive_slide
from server.upload_files import UploadLimits

log = structlog.get_logger(__name__)
_NOT_READY_RETRY_S = 5
# A Redis that is stopped does not refuse, it is silent.
_REMEMBER_WITHIN_S = 3.0


@dataclass(frozen=True)
class PreparedSlide:
    """A slide that was uploaded; `created` is False when the tenant had its content already."""

    slide: Slide
    created: bool


async def prepare_slide(
    tenant: str, body: AsyncIterator[bytes], content_type: str, announced_bytes: int, parts: Parts
) -> PreparedSlide:
    """Receive a slide, refuse what is none, keep it, and queue its encode."""
    limits = await admit_upload(tenant, announced_bytes, parts)
    received = await receive_slide(body, content_type, parts.store.new_staging_path(), limits, parts.metrics)
    try:
        known = await parts.slides.look(tenant, received.slide_id)
        if isinstance(known, SlideRecord):
            return await _mended(known, received, parts)
        if known is not None and not known.replaceable:
            return PreparedSlide(describe_unreadable(known), created=False)
        record = await _keep(tenant, received, parts)
    finally:
        await asyncio.to_thread(shutil.rmtree, received.folder, ignore_errors=True)
    with contextlib.suppress(Overloaded):  # it filled up meanwhile: the slide is kept, the reconciler queues it
        await _enqueue_anew(record, parts)
    return PreparedSlide(await show_slide(record, parts), created=True)


async def _mended(record: SlideRecord, received: ReceivedSlide, parts: Parts) -> PreparedSlide:
    """A slide that is known: nothing happens, unless its stored source is gone or is not what was uploaded.

    Its bytes are compared when it failed, for that may be why; else the sizes have to do, or every upload would read
    them.
    """
    by_digest = record.error is not None
    if await source_is_whole(parts.store, record.paths, received.files, by_digest=by_digest):
        return PreparedSlide(await show_slide(record, parts), created=False)
    async with parts.slides.lock(record.tenant, record.id):
        await publish_source(parts.store, record.paths, received.files, replace=True)
    log.info("source_mended", slide=record.id[:12])
    changed = await parts.slides.update(record, lambda stored: stored.model_copy(update={"error": None}))
    if changed is None:
        await parts.slides.remove_orphan(record.tenant, record.id)
        raise NotFound("The slide was deleted meanwhile.")
    with contextlib.suppress(Overloaded):  # as above
        return PreparedSlide(await encode_again(record, changed, parts), created=True)
    return PreparedSlide(await show_slide(changed, parts), created=True)


async def admit_upload(tenant: str, announced_bytes: int, parts: Parts) -> UploadLimits:
    """Refuse an upload before its first byte when it could not be kept or encoded; else what it may take.

    Raises:
        Overloaded, QuotaExceeded, QueueUnavailable.
    """
    await parts.jobs.require_room(tenant)
    await parts.usage.require_encoding(tenant)
    left = await parts.usage.require_room(tenant, announced_bytes)
    return UploadLimits(parts.settings.max_upload_bytes, parts.settings.disk_reserve_bytes, left)


async def answer_question(tenant: str, slide_id: str, question: Question, parts: Parts) -> OpenAnswer:
    """Find the embedding and hand question, earlier turns and slide to vLLM; the caller streams or closes it.

    Raises:
        NotFound, SlideNotReady, SlideFailed, WrongConversation, …: nothing was asked.
    """
    watch = Stopwatch()
    text = question_text(question.text, parts.settings.max_question_chars)
    record = await parts.slides.require(tenant, slide_id)
    conversation = await parts.conversations.continue_or_start(tenant, slide_id, question.conversation_id)
    with span("find embedding"):
        slide = await require_embedding(record, parts)
    watch.cache_ms = watch.elapsed_ms()
    how = sampling(question.wishes, parts.manifest)

    async def open_without(turns: int) -> Answer:
        return await parts.language_model.open(tenant, conversation_messages(slide, conversation, text, turns), how)

    beyond = turns_beyond_budget(conversation, text, slide.slide_tokens, how.max_tokens, parts.manifest.llm)
    opened = await open_what_fits(open_without, len(conversation.turns), beyond)
    return OpenAnswer(opened.answer, record, conversation, text, watch, opened.turns_left_out)


async def stream_answer(opened: OpenAnswer, parts: Parts) -> AsyncGenerator[Event, None]:
    """`token` events as they come, then `done`; raises when the answer breaks off, and remembers it when not."""
    text = ""
    async with aclosing(timed_pieces(opened.answer, opened.watch, parts.metrics)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Token):
                text += piece.text
                yield Event("token", {"text": piece.text})
                continue
            remembered = await _remember(opened, text, parts)
            yield Event("done", done_data(opened, text, piece.usage, parts.manifest, remembered=remembered))


async def encode_again(before: SlideRecord, record: SlideRecord, parts: Parts) -> Slide:
    """Queue the encode of a record that was changed, unless that embedding is there already."""
    if record.encoder_id != before.encoder_id:
        await parts.jobs.cancel(before)
        await remove_parts(parts.store, before.paths, before.encoder_id)
    if await slide_status(record, parts) != "ready":
        await parts.progress.forget(record.tenant, record.id)
        await _enqueue_anew(record, parts)
    return await show_slide(record, parts)


async def delete_slide(record: SlideRecord | UnreadableRecord, parts: Parts) -> None:
    """Remove source, features, embeddings, cache, job, events and conversations. The record goes first: from
    then on the slide does not exist, and a worker that still runs publishes nothing. The lock keeps an upload of the
    same slide out, and asks Redis before anything is gone."""
    async with parts.slides.lock(record.tenant, record.id):
        await parts.store.delete(record.paths.record)
        if isinstance(record, SlideRecord):  # else nobody knows its job's name; it ends when it finds no record
            await parts.jobs.cancel(record)
        size_bytes = await parts.store.stored_bytes(record.paths.folder)
        await parts.store.delete_folder(record.paths.folder)
        await parts.usage.give_room_back(record.tenant, size_bytes)
        await forget_slide(record.tenant, record.id, parts)


async def forget_slide(tenant: str, slide_id: str, parts: Parts) -> None:
    """Drop what Redis remembers of a slide that is gone from the store."""
    parts.thumbnails.forget(tenant, slide_id)
    await parts.embeddings.forget(tenant, slide_id)
    await parts.conversations.forget_slide(tenant, slide_id)
    await parts.progress.forget(tenant, slide_id)


async def enqueue(record: SlideRecord, parts: Parts) -> bool:
    """Queue the slide's encode and count it; False when it is queued or running already."""
    queued = await parts.jobs.enqueue(record)
    if queued:
        parts.metrics.encode_jobs.inc()
    return queued


async def _enqueue_anew(record: SlideRecord, parts: Parts) -> None:
    """Queue an encode that the tenant asked for; one that waits and is only made urgent counts no second time."""
    waits = await parts.jobs.find(record) is not None
    if await enqueue(record, parts) and not waits:
        await parts.usage.count_encoding(record.tenant)


async def require_embedding(record: SlideRecord, parts: Parts) -> SlideInput:
    """The slide's embedding as the language model gets it.

    Raises:
        SlideFailed: it could not be encoded.
        SlideNotReady: not yet.
    """
    with contextlib.suppress(StoredFileDamaged):  # the cache has deleted it: it is made again below
        slide = await parts.asked_slides.find(record)
        if slide is not None:
            return slide
    if record.error is not None:
        raise SlideFailed(f"The slide could not be encoded ({record.error.code}): {record.error.detail}")
    await enqueue(record, parts)  # changes nothing while the slide is queued; a lost job need not wait a minute
    raise SlideNotReady(
        "The slide is still being encoded; follow its events or ask again shortly.",
        retry_after_s=_NOT_READY_RETRY_S,
    )


async def show_slide(record: SlideRecord | UnreadableRecord, parts: Parts) -> Slide:
    """The Slide of the HTTP contract."""
    if isinstance(record, UnreadableRecord):
        return describe_unreadable(record)
    status = await slide_status(record, parts)
    if status == "ready" and record.tile_count is None:
        with contextlib.suppress(StoredFileDamaged):
            return describe(await _with_tile_count(record, parts), status)
        status = await slide_status(record, parts)  # the cache has deleted it
    return describe(record, status)


async def _with_tile_count(record: SlideRecord, parts: Parts) -> SlideRecord:
    """A slide is ready as soon as its embedding is there: before the worker has written it down, and when a model or
    µm/px is chosen again that it was encoded with before. None stays None where slide tokens were given."""
    cached = await parts.embeddings.find(record)
    tile_count = cached.embedding.tile_count if cached else 0
    return record.model_copy(update={"tile_count": tile_count or None})


async def slide_status(record: SlideRecord, parts: Parts) -> Status:
    """Ready when the embedding is there; else what the record and the queue say."""
    if await parts.embeddings.exists(record):
        return "ready"
    if record.error is not None:
        return "failed"
    return "encoding" if await parts.jobs.is_running(record) else "queued"


async def _remember(opened: OpenAnswer, answer: str, parts: Parts) -> bool:
    """Keep the turn, unless the slide was deleted while it was answered; whether it is kept. An answer is worth more
    than its being remembered: whatever fails here is said beside it."""
    record = opened.record
    try:
        async with asyncio.timeout(_REMEMBER_WITHIN_S):
            if await parts.slides.find(record.tenant, record.id) is None:
                return False
            return await parts.conversations.add_turn(record.tenant, opened.conversation, opened.question, answer)
    except (EyepieceError, RedisError, TimeoutError) as error:
        log.warning("answer_not_remembered", error=type(error).__name__)
        return False


async def _keep(tenant: str, received: ReceivedSlide, parts: Parts) -> SlideRecord:
    record = await _look_inside(tenant, received, parts)
    async with (
        parts.slides.lock(tenant, received.slide_id),  # the reconciler removes folders without a record
        parts.usage.room_for(tenant, received.size_bytes) as room,
    ):
        await publish_source(parts.store, record.paths, received.files, replace=True)
        room.is_used = await parts.slides.create(record)
    return await parts.slides.require(tenant, received.slide_id)


async def _look_inside(tenant: str, received: ReceivedSlide, parts: Parts) -> SlideRecord:
    """The record of what was received. Features are only recognised here; the worker reads them and knows the model."""
    first = received.files[0]
    record = parts.slides.new_record(tenant, received.slide_id, display_name(first.relative_path), received.size_bytes)
    if len(received.files) == 1 and features_kind(first.path) is not None:
        return record.model_copy(update={"vendor": FEATURES_VENDOR})
    entry = await find_entry(tenant, received.files, received.folder, parts.inspector)
    name = display_name(entry.relative_path or first.relative_path)
    return record.with_facts(entry.facts).model_copy(update={"entry": entry.relative_path, "filename": name})
