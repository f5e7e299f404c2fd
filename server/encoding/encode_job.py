"""One encode job: from the queue's message to a published embedding, with progress, heartbeat and an outcome.

It runs in a worker but knows no model: `encode` is handed in. Delivery is at least once, so everything it writes
has a content-derived name and writing it twice changes nothing. What a killed attempt had got so far lies in the
store, in parts, until the embedding does.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError
from saq import Job, Status

from encoders.caller import Caller
from encoders.embedding_file import to_bytes
from encoders.errors import DeviceFull, DeviceLost, DeviceOutOfMemory, ReaderDied, SlideError, UnreadableSlide
from encoders.familiarity import Familiarity
from encoders.features_file import read_facts
from encoders.types import SlideEmbedding, SlideFile, SlideWarning, Stage
from model_store.errors import EyepieceError
from server.embeddings.cache import EmbeddingCache
from server.encoding.jobs import TRACE, JobQueue, run_of
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import Event, ProgressLog
from server.slides.slide_record import TILES_THINNED, FamiliarityRecord, SlideRecord, UnreadableRecord, recorded
from server.slides.slide_record import SlideError as Failure
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.storage.stored_parts import StoredParts, remove_parts
from server.telemetry.metrics import WorkerMetrics
from server.telemetry.tracing import past_span, span
from server.to_the_end import stop_beating, to_the_end
from server.uploads.slide_source import LocalSource, local_source, source_changed
from server.webhooks.event import slide_event
from server.webhooks.outbox import Outbox

log = structlog.get_logger(__name__)

Encode = Callable[[SlideFile, float | None, Path, Caller], SlideEmbedding]
# Often enough for a progress bar, rarely enough for Redis.
_PROGRESS_EVERY_S = 0.5
# A quarter of an hour: vLLM or another slide may give memory back, and what is too large for every worker is said.
_MEMORY_WAITS, _MEMORY_WAIT_S = 15, 60.0
_TOO_LITTLE_MEMORY = (
    "The slide is intact, but encoding it needs more memory than the worker's device has. Ask the operator to give the "
    "worker more, then encode it again."
)
# `encoders.tiling.slide_readers.choose_reader` says why a slide has another one.
_FAST_READER = "fast_tiff"
# Stages that go through a slide's tiles, or through the regions of a model of levels.
_COUNTED = ("encode_tiles", "encode_regions")


class EncodeInterrupted(EyepieceError):
    """An attempt that ended in an error which may pass."""


@dataclass(frozen=True)
class EncodeJob:
    """The parts that an encode needs; `run` is the function that SAQ calls. `encodes` has the encode of each model that
    this worker serves, the default's under ""."""

    settings: Settings
    store: SlideStore
    slides: SlideCatalogue
    embeddings: EmbeddingCache
    progress: ProgressLog
    outbox: Outbox
    usage: Usage
    metrics: WorkerMetrics
    encodes: Mapping[str, Encode]
    on_device_lost: Callable[[], None]

    async def run(
        self, context: dict[str, Any], *, tenant: str, slide_id: str, encoder_id: str, generation: str, model: str = ""
    ) -> str:
        """Encode one slide; the outcome as a word.

        Raises:
            EyepieceError: something that may pass; SAQ tries again.
        """
        record = await self.slides.look(tenant, slide_id, model)
        if isinstance(record, UnreadableRecord):  # the reconciler queues it when a release that can reads it
            context["job"].ttl = -1  # SAQ's word for: keep nothing of it
            return self._ended(model, record.error.code)
        if record is None or record.generation != generation:
            context["job"].ttl = -1
            return self._ended(model, "deleted")
        if record.encoder_id != encoder_id or record.model not in self.encodes:
            # A roll-out: this worker serves another model than whoever queued the job. The reconciler queues it anew.
            context["job"].ttl = -1
            return self._ended(model, "other_model")
        try:
            with span("encode slide", context["job"].meta.get(TRACE)):
                return self._ended(model, await self._encode(context["job"], record, encoder_id))
        except SlideError as error:
            await self._fail(context["job"], record, error)
            return self._ended(model, error.code)
        except DeviceOutOfMemory as error:
            log.warning("device_out_of_memory", slide=record.id[:12], detail=error.detail)
            return await self._try_when_there_is_memory(context["job"], record)
        except DeviceLost as error:
            # It says nothing about the slide, so it spends none of the attempts that errors get. A slide on which GPUs
            # fail ends with its starts; one tile is like another, so no slide is to blame for a full GPU.
            if isinstance(error, DeviceFull):
                context["job"].retries += 1
            log.error("device_lost", slide=record.id[:12], exc_info=error)
            self.metrics.jobs.labels(self._name(model), "device_lost").inc()
            self.on_device_lost()
            raise EncodeInterrupted("The worker's device has failed.") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it spends one of the attempts that errors get
            return await self._try_again(context["job"], record, error)

    async def _encode(self, job: Job, record: SlideRecord, encoder_id: str) -> str:
        if await self.embeddings.exists(record):
            await self._succeed(job, record)
            await remove_parts(self.store, record.paths, encoder_id)
            return "known"
        beating = asyncio.create_task(heartbeat(job, self.settings.job_heartbeat_s / 3))
        try:
            async with self._source(record) as source:
                embedding = await self._compared(record, source)
        except FileNotFoundError as error:
            if await self.slides.find(record.tenant, record.id) is not None and not await self._has_source(record):
                raise UnreadableSlide("The stored file of this slide is missing; upload the slide again.") from error
            raise
        except asyncio.CancelledError:
            await self._leave_nothing_of_a_deleted_slide(record)
            raise
        finally:
            await stop_beating(beating)
        # Not broken off half-way by a worker that leaves: what is published of a slide that is gone has to go too.
        await to_the_end(self._publish(job, record, embedding))
        if isinstance(job.queue, JobQueue):
            with contextlib.suppress(RedisError):  # as above
                await job.queue.charge(record.tenant, embedding.tile_count)
        return "ready"

    async def _has_source(self, record: SlideRecord) -> bool:
        """Whether what is to be encoded is there; of a slide of several files, the list of them."""
        if record.features_sha256 is not None:
            return await self.store.exists(record.paths.given_features(record.features_sha256))
        return await self.store.exists(record.paths.source if record.entry is None else record.paths.source_manifest)

    @contextlib.asynccontextmanager
    async def _source(self, record: SlideRecord) -> AsyncIterator[LocalSource]:
        """What to encode, on local disk: attached features, else what was uploaded."""
        if record.features_sha256 is None:
            async with local_source(self.store, record.paths, record.entry) as source:
                yield source
        else:
            async with self.store.local_file(record.paths.given_features(record.features_sha256)) as path:
                yield LocalSource(path, digests=((path, record.features_sha256),))

    async def _compared(self, record: SlideRecord, source: LocalSource) -> SlideEmbedding:
        """The embedding of a source whose bytes, read beside the encode, are those that were uploaded: a flipped byte
        can decode to other tissue without a word. Nothing is published before."""
        stop = threading.Event()
        comparing = asyncio.create_task(asyncio.to_thread(source.is_unchanged, stop))
        try:
            try:
                return await self._in_thread(record, source, comparing)
            except SlideError:
                if not await asyncio.shield(comparing):
                    raise source_changed() from None
                raise
        finally:
            stop.set()
            await asyncio.gather(comparing, return_exceptions=True)

    async def _in_thread(
        self, record: SlideRecord, source: LocalSource, is_unchanged: "asyncio.Task[bool]"
    ) -> SlideEmbedding:
        """Run the encode beside the event loop, so that the heartbeat goes on; cancelling stops it at a batch."""
        features_path = self.store.new_staging_path()
        loop = asyncio.get_running_loop()
        reporter = _Reporter(self.progress, self.metrics, record, loop)
        cancelled = threading.Event()
        parts = StoredParts(self.store, record.paths.parts(record.encoder_id), loop)

        def note_warnings(warnings: tuple[SlideWarning, ...]) -> None:
            """At once: a killed attempt's successor may find the embedding made."""
            # Whoever encodes attached features sees no slide: what was doubted about it, and about where they lie on
            # it, was said before. How many of the tiles are used is said now.
            attached = record.warnings if record.features_sha256 else ()
            known = tuple(it for it in attached if it.code != TILES_THINNED)
            found = (*known, *recorded(warnings))
            if found == record.warnings:
                return
            noted = self._note(record, {"warnings": found})
            asyncio.run_coroutine_threadsafe(noted, loop).result()

        def note_familiarity(found: Familiarity) -> None:
            measured = FamiliarityRecord(encoder_id=record.encoder_id, distance=found.distance)
            asyncio.run_coroutine_threadsafe(self._note(record, {"familiarity": measured}), loop).result()

        caller = Caller(reporter.report, reporter.opened, cancelled, parts, note_warnings, note_familiarity)
        slide = SlideFile(record.id, source.path, record.features_sha256, source.folder, record.budget)
        encode = self.encodes[record.model]
        work = asyncio.create_task(asyncio.to_thread(encode, slide, record.mpp_override, features_path, caller))
        try:
            embedding = await asyncio.shield(work)
            if not await asyncio.shield(is_unchanged):
                raise source_changed()
            reporter.finish()
            if features_path.exists():  # not when slide tokens were given
                size_bytes = features_path.stat().st_size
                if await self.store.publish_file(features_path, record.paths.features(record.encoder_id)):
                    await self._count_stored(record, size_bytes)
            return embedding
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.gather(work, return_exceptions=True)
            raise
        finally:
            features_path.unlink(missing_ok=True)

    async def _publish(self, job: Job, record: SlideRecord, embedding: SlideEmbedding) -> None:
        """Asks the store only, so that an encode is not lost because Redis is away when it ends."""
        if await self.slides.find(record.tenant, record.id) is not None:
            content = to_bytes(embedding)
            if await self.embeddings.publish(record, content):
                await self._count_stored(record, len(content))
        await remove_parts(self.store, record.paths, record.encoder_id)
        await self._succeed(job, record, embedding.tile_count)

    async def _count_stored(self, record: SlideRecord, size_bytes: int) -> None:
        with contextlib.suppress(RedisError):  # counted anew within a day
            await self.usage.count_stored(record.tenant, size_bytes)

    async def _leave_nothing_of_a_deleted_slide(self, record: SlideRecord) -> None:
        """The last part may have come after everything else of the slide was removed."""
        with contextlib.suppress(RedisError, EyepieceError):  # the reconciler sees it too
            if await self.slides.find(record.tenant, record.id) is None:
                await self.slides.remove_orphan(record.tenant, record.id)

    async def _succeed(self, job: Job, record: SlideRecord, tile_count: int | None = None) -> None:
        if tile_count is None:
            cached = await self.embeddings.find(record)
            tile_count = cached.embedding.tile_count if cached else None
        result = {"tile_count": tile_count or None, "error": None, **await self._stated_facts(record)}
        changed = await self._note(record, result)
        if changed is None:
            # Deleted meanwhile, perhaps before our files came. Uploaded again meanwhile: then they are right.
            if await self.slides.remove_orphan(record.tenant, record.id):
                await self.embeddings.forget(record.tenant, record.id)
        elif changed.encoder_id == record.encoder_id:
            await self._tell(job, record)
            await self.progress.append(record.tenant, record.id, Event("ready", {}), record.model)

    async def _note(self, record: SlideRecord, result: dict[str, Any]) -> SlideRecord | None:
        """Write the result into the record, unless another µm/px or source was asked for meanwhile: then it is the
        result of a run that nobody waits for any more. None when the slide was deleted."""

        def noted(stored: SlideRecord) -> SlideRecord:
            is_its_own = stored.encoder_id == record.encoder_id
            return stored.model_copy(update={**result, "wanted": True}) if is_its_own else stored

        return await self.slides.update(record, noted)

    async def _stated_facts(self, record: SlideRecord) -> dict[str, Any]:
        """What uploaded features say of the slide that they were made from; of any other slide the upload told it."""
        if record.has_pixels:
            return {}
        try:
            async with self.store.local_file(record.paths.features(record.encoder_id)) as path:
                return asdict(read_facts(path))
        except FileNotFoundError:  # slide tokens were given
            return {}

    async def _fail(self, job: Job, record: SlideRecord, error: EyepieceError) -> None:
        await remove_parts(self.store, record.paths, record.encoder_id)
        failure = Failure(code=error.code, detail=error.detail)
        changed = await self._note(record, {"error": failure})
        if changed is not None and changed.encoder_id == record.encoder_id:
            await self._tell(job, record, failure.code)
            await self.progress.append(record.tenant, record.id, Event("failed", failure.model_dump()), record.model)

    async def _tell(self, job: Job, record: SlideRecord, error_code: str | None = None) -> None:
        """Before the followers of this slide: who dies in between tells both again, and webhooks know what is told
        twice of one run."""
        event = slide_event(
            record.tenant,
            record.id,
            model=self._name(record.model),
            encoder_id=record.encoder_id,
            run=run_of(job),
            error_code=error_code,
        )
        await self.outbox.add(event)

    async def _try_again(self, job: Job, record: SlideRecord, error: Exception) -> str:
        """Errors get fewer attempts than lost leases: a killed worker says nothing about the slide."""
        errors = int(job.meta.get("errors", 0)) + 1
        job.meta["errors"] = errors
        log.warning("encode_error", slide=record.id[:12], attempt=errors, exc_info=error)
        if errors < self.settings.job_error_attempts:
            self.metrics.jobs.labels(self._name(record.model), "retried").inc()
            # Without its text: SAQ keeps the traceback in Redis, and it may quote a path.
            raise EncodeInterrupted(f"Encoding was interrupted by {type(error).__name__}.") from None
        await self._fail(job, record, _believed(error))
        return self._ended(record.model, "gave_up")

    async def _try_when_there_is_memory(self, job: Job, record: SlideRecord) -> str:
        """Back to the queue, where a worker with more memory may take it; that spends no attempt of the slide.

        Not for ever: what a slide needs in the slide encoder grows with its tiles, and may be more than any worker has.
        """
        waits = int(job.meta.get("memory_waits", 0)) + 1
        job.meta["memory_waits"] = waits
        if waits > _MEMORY_WAITS:
            await self._fail(job, record, EyepieceError(_TOO_LITTLE_MEMORY))
            return self._ended(record.model, "out_of_memory_for_good")
        job.retries += 1
        job.retry_delay, job.retry_backoff = _MEMORY_WAIT_S, False
        self.metrics.jobs.labels(self._name(record.model), "out_of_memory").inc()
        raise EncodeInterrupted("The worker's device had too little memory for this slide.") from None

    def _name(self, model: str) -> str:
        return model or self.settings.default_model

    def _ended(self, model: str, outcome: str) -> str:
        self.metrics.jobs.labels(self._name(model), outcome).inc()
        return outcome


def _believed(error: Exception) -> EyepieceError:
    """What an error is called that came in every attempt; who reads "try again" then has been misled."""
    if isinstance(error, ReaderDied):
        return UnreadableSlide(
            "The process that reads the slide crashed or hung on every attempt. Upload an intact copy; if this one is "
            "intact, tell the operator."
        )
    if isinstance(error, EyepieceError):
        return error
    return EyepieceError("Encoding failed repeatedly; the operator finds why in the log.")


class _Reporter:
    """Turns the pipeline's progress, reported from its thread, into events and metrics."""

    def __init__(
        self, progress: ProgressLog, metrics: WorkerMetrics, record: SlideRecord, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._progress = progress
        self._metrics = metrics
        self._record = record
        self._loop = loop
        self._stage: Stage | None = None
        self._stage_began = 0.0
        self._last_sent = 0.0
        self._tiles_done = 0

    def report(self, stage: Stage, done: int, total: int) -> None:
        """Called from the encoding thread."""
        now = time.monotonic()
        if stage != self._stage:
            self._begin_stage(stage, done, now)
        elif done < total and now - self._last_sent < _PROGRESS_EVERY_S:
            return
        if stage in _COUNTED:
            self._metrics.tiles.inc(done - self._tiles_done)
            self._tiles_done = done
        self._last_sent = now
        event = Event("progress", {"stage": stage, "done": done, "total": total})
        # Waited for, so that events keep their order and a slow Redis slows the encode down instead of piling up.
        asyncio.run_coroutine_threadsafe(self._send(event), self._loop).result()

    def opened(self, reader: str, reason: str) -> None:
        """Called from the encoding thread: which reader opened the slide, and why that one."""
        self._metrics.slides_opened.labels(reader, reason).inc()
        if reader != _FAST_READER:
            log.info("slow_reader", slide=self._record.id[:12], reader=reader, reason=reason)

    def finish(self) -> None:
        """The last stage is over."""
        self._end_stage(time.monotonic())

    async def _send(self, event: Event) -> None:
        try:
            await self._progress.append(self._record.tenant, self._record.id, event, self._record.model)
        except RedisError as error:  # progress is worth less than the encode that it reports
            log.warning("progress_lost", error=type(error).__name__)

    def _begin_stage(self, stage: Stage, done: int, now: float) -> None:
        self._end_stage(now)
        self._stage, self._stage_began = stage, now
        if stage in _COUNTED and done:  # an earlier attempt's
            self._tiles_done = done
            self._metrics.tiles_resumed.inc(done)
            log.info("encode_resumed", slide=self._record.id[:12], tiles=done)

    def _end_stage(self, now: float) -> None:
        if self._stage is not None:
            self._metrics.encode_s.labels(self._stage).observe(now - self._stage_began)
            past_span(self._stage, now - self._stage_began)


async def heartbeat(job: Job, every_s: float) -> None:
    """Tell the queue that the job lives, until cancelled; while Redis is away there is nobody to tell.

    A worker that was not heard of for so long that its job was given to another one falls silent: what it would write
    is older than what the other one has. Its encode goes on, and whoever ends first publishes.
    """
    while True:
        await asyncio.sleep(every_s)
        try:
            if not await _has_lease(job):
                log.warning("lease_lost", attempt=job.attempts)
                return
            await job.update()
        except RedisError as error:
            log.warning("heartbeat_failed", error=type(error).__name__)


async def _has_lease(job: Job) -> bool:
    stored = await job.get_queue().job(job.key)
    return stored is not None and stored.status == Status.ACTIVE and stored.attempts == job.attempts
