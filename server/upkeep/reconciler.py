"""No stored slide is forgotten: a slide with neither embedding nor job is queued again, at start and every minute.

That, not Redis' append-only file, is the guarantee: Redis may lose its last second. A job that was killed as often
as it may be is turned into a failure, so that a poisonous slide does not come back for ever.

It looks at what is on the shelf `pending` (`server.slides.slide_index`) and has no job, so a round costs as much as
there is to do, however many slides are stored. It alone takes slides from that shelf, once they are through.
"""

import asyncio
import time
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis
from redis.exceptions import LockError, RedisError
from saq import Job, Status

from model_store.errors import EyepieceError
from server.embeddings.cache import EmbeddingCache
from server.encoding.jobs import EncodeJobs, run_of
from server.errors import Overloaded
from server.flow.delete_slide import ForgetSlide
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import Event, ProgressLog
from server.slides.slide_index import PendingEntry, entry_of, slide_id_of
from server.slides.slide_record import SlideError, SlideRecord, UnreadableRecord
from server.storage.slide_store import SlideStore
from server.storage.stored_parts import remove_parts, remove_parts_of_others
from server.telemetry.metrics import Metrics
from server.upkeep.rounds import go_round
from server.webhooks.event import slide_event
from server.webhooks.outbox import Outbox

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:reconciler"
_AT_ONCE = 1000
# Whoever has a slide's lock for longer stores a large upload; the next round looks again.
_PATIENCE_S = 0.5
GAVE_UP = SlideError(
    code="unreadable_slide",
    detail="Every attempt to encode this slide stopped its worker; check the file, then encode it again.",
)


@dataclass
class Reconciler:
    """One of the API replicas does the round; the others see that it was done."""

    redis: Redis
    store: SlideStore
    slides: SlideCatalogue
    embeddings: EmbeddingCache
    jobs: EncodeJobs
    progress: ProgressLog
    outbox: Outbox
    encodes: QueueEncode
    forgetting: ForgetSlide
    metrics: Metrics
    every_s: int
    default_model: str
    _orphans: set[tuple[str, str]] = field(default_factory=set, init=False)
    # Where the next round goes on, when the last one had more to do than it had time.
    _position: str = field(default="", init=False)

    async def run(self) -> None:
        """Round after round until cancelled; a dependency that is away costs one round."""
        await go_round(self.round_once, self.every_s, "reconcile_failed")

    async def round_once(self) -> int | None:
        """The round, unless another replica did it in this period; how many slides were acted upon."""
        if not await self.redis.set(_LOCK_KEY, "1", nx=True, ex=max(1, self.every_s - 1)):
            return None
        return await self.round(time.monotonic() + self.every_s / 2)

    async def round(self, until: float | None = None) -> int:
        """Look at every pending slide that has no job, or at as many as there is time for `until`, on the monotonic
        clock; how many were acted upon."""
        await asyncio.to_thread(self.store.remove_abandoned)
        with_job = await self.jobs.slides_with_job()
        acted, full = 0, set[str]()
        while batch := await self.slides.index.pending(self._position, _AT_ONCE):
            for found in batch:
                self._position = found.path
                slide = (found.tenant, slide_id_of(found.entry))
                # What is none of ours is passed over; a full queue will not take a tenant's next slide either.
                if found.tenant and slide not in with_job and found.tenant not in full:
                    try:
                        acted += await self._look_at_alone(found)
                    except Overloaded:
                        full.add(found.tenant)
                if until is not None and time.monotonic() >= until:
                    return acted
        self._position = ""
        return acted

    async def _look_at_alone(self, found: PendingEntry) -> bool:
        """One slide that cannot be looked at must not hide the others."""
        slide = slide_id_of(found.entry)[:12]
        try:
            return await self._look_at(found.tenant, found.entry)
        except Overloaded:
            raise
        except LockError:  # an upload or a deletion of it is under way
            return False
        except RedisError:
            raise
        except EyepieceError as error:
            log.warning("reconcile_failed", slide=slide, code=error.code)
        except Exception as error:  # the other slides of the round are none the worse
            log.error("reconcile_failed", slide=slide, exc_info=error)
        return False

    async def _look_at(self, tenant: str, entry: str) -> bool:
        record = await self.slides.look(tenant, slide_id_of(entry))
        if record is None:
            return await self._remove_orphan(tenant, entry)
        self._orphans.discard((tenant, entry))
        if isinstance(record, UnreadableRecord):  # stays: a release that can read it may come back
            await self.slides.index.add_entry("failed", tenant, entry)
            return False
        if entry != entry_of(record):
            await self._remove_stale(record, entry)
            return False
        waiting = await self._not_through(record)
        # A worker died between publishing and removing them, or another encoder is served now.
        if await remove_parts_of_others(self.store, record.paths, {it.encoder_id for it in waiting}):
            self._count(record, "parts_removed")
        if not waiting:
            await self._settle(record)
            return False
        return any([await self._requeue(it) for it in waiting])

    async def _not_through(self, record: SlideRecord) -> list[SlideRecord]:
        """The record as those models see it that the slide is to be encoded for yet."""
        wanted = self.slides.wanted_by(record)
        return [it for it in wanted if it.error is None and not await self.embeddings.exists(it)]

    async def _settle(self, record: SlideRecord) -> None:
        """The slide is through. Under its lock: a wish to encode it again comes before, or after."""
        index = self.slides.index
        async with self.slides.lock(record.tenant, record.id, _PATIENCE_S):
            stored = await self.slides.find(record.tenant, record.id)
            if stored is None or stored.generation != record.generation or not await self._is_through(stored):
                return
            if stored.error is not None:
                await index.add("failed", stored)
            else:
                await index.take("failed", stored.tenant, entry_of(stored))
            await index.take("pending", stored.tenant, entry_of(stored))
            # Meanwhile its embedding was found damaged, or a server of another model began to go through all slides.
            if not await self._is_through(stored):
                await index.add("pending", stored)

    async def _is_through(self, record: SlideRecord) -> bool:
        """Not for a model that another server has taken over from: it needs all slides, whichever this one has."""
        state = await self.slides.index.state(record.tenant)
        if state is None or state.encoder != self.slides.served_encoder:
            return False
        return not await self._not_through(record)

    async def _remove_stale(self, record: SlideRecord, entry: str) -> None:
        """An entry of an upload that came second, or before the slide was deleted and uploaded again."""
        async with self.slides.lock(record.tenant, record.id, _PATIENCE_S):
            stored = await self.slides.find(record.tenant, record.id)
            if stored is not None and entry_of(stored) != entry:
                await self.slides.index.add("pending", stored)
                await self.slides.withdraw(record.tenant, entry)

    async def _requeue(self, record: SlideRecord) -> bool:
        if await self.jobs.find(record) is not None:
            return False
        ended = await self.jobs.find(record, finished=True)
        if ended is not None and ended.status in (Status.ABORTED, Status.FAILED) and not ended.retryable:
            await self._give_up(record, ended)
            return True
        await self.progress.forget(record.tenant, record.id, record.model)  # how an encode by another model went
        if not await self.encodes.enqueue(record):
            return False
        self._count(record, "requeued")
        return True

    async def _give_up(self, record: SlideRecord, ended: Job) -> None:
        await self.slides.update(record, lambda stored: stored.model_copy(update={"error": GAVE_UP}))
        event = slide_event(
            record.tenant,
            record.id,
            model=record.model or self.default_model,
            encoder_id=record.encoder_id,
            run=run_of(ended),
            error_code=GAVE_UP.code,
        )
        await self.outbox.add(event)
        await self.progress.append(record.tenant, record.id, Event("failed", GAVE_UP.model_dump()), record.model)
        await remove_parts(self.store, record.paths, record.encoder_id)
        await self.jobs.cancel(record)  # or the next encode of this slide would be given up for this one
        self._count(record, "gave_up")

    async def _remove_orphan(self, tenant: str, entry: str) -> bool:
        """No record: an upload or a deletion is under way, or has died; the second round tells which."""
        if (tenant, entry) not in self._orphans:
            self._orphans.add((tenant, entry))
            return False
        self._orphans.discard((tenant, entry))
        slide_id = slide_id_of(entry)
        if not await self.slides.remove_orphan(tenant, slide_id, _PATIENCE_S):
            return False
        await self.forgetting.forget(tenant, slide_id)
        await self.slides.withdraw(tenant, entry)
        self.metrics.reconciled.labels("orphan_removed").inc()
        return True

    def _count(self, record: SlideRecord, action: str) -> None:
        self.metrics.reconciled.labels(action).inc()
        log.info("slide_reconciled", slide=record.id[:12], action=action)
