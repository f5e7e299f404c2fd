"""No stored slide is forgotten: a slide with neither embedding nor job is queued again, at start and every minute.

That, not Redis' append-only file, is the guarantee: Redis may lose its last second. A job that was killed as often
as it may be is turned into a failure, so that a poisonous slide does not come back for ever.
"""

import asyncio
import time

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from saq import Status

from model_store.errors import EyepieceError
from server.embeddings.cache import EmbeddingCache
from server.flow.delete_slide import ForgetSlide
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue, SlideError, SlideRecord
from server.slides.progress import Event
from server.storage.slide_store import TENANT_PATTERN
from server.storage.stored_parts import remove_parts, remove_parts_of_others

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:reconciler"
# What tenants have stored is counted again so often; encodes have added to it.
_RECOUNT_EVERY_S = 600.0
GAVE_UP = SlideError(
    code="unreadable_slide",
    detail="Encoding this slide stopped its worker every time it was tried; check the file, then encode it again.",
)


class Reconciler:
    """One of the API replicas does the round; the others see that it was done."""

    def __init__(
        self,
        redis: Redis,
        slides: SlideCatalogue,
        embeddings: EmbeddingCache,
        encodes: QueueEncode,
        forgetting: ForgetSlide,
        every_s: int,
    ) -> None:
        self._redis = redis
        self._slides = slides
        self._embeddings = embeddings
        self._encodes = encodes
        self._forgetting = forgetting
        self._every_s = every_s
        # A slide seen ready stays so until its record changes; this saves asking the store every minute.
        self._settled: set[tuple[str, str, str]] = set()
        # Looked through for parts that nobody will ask for, with the encoder whose parts were left.
        self._tidied: set[tuple[str, str, str, str | None]] = set()
        self._orphans: set[tuple[str, str]] = set()
        self._recount_at = 0.0

    async def run(self) -> None:
        """Round after round until cancelled; a dependency that is away costs one round."""
        while True:
            try:
                await self.round_once()
            except (RedisError, EyepieceError) as error:
                log.warning("reconcile_failed", error=type(error).__name__)
            except Exception as error:  # one bad slide must not end the rounds for all others
                log.error("reconcile_failed", exc_info=error)
            await asyncio.sleep(self._every_s)

    async def round_once(self) -> int | None:
        """The round, unless another replica did it in this period; how many slides were acted upon."""
        if not await self._redis.set(_LOCK_KEY, "1", nx=True, ex=max(1, self._every_s - 1)):
            return None
        return await self.round()

    async def round(self) -> int:
        """Look at every slide of every tenant; how many were acted upon."""
        acted = 0
        recounts = time.monotonic() >= self._recount_at
        if recounts:
            self._recount_at = time.monotonic() + _RECOUNT_EVERY_S
        await asyncio.to_thread(self._encodes.store.remove_abandoned)
        for tenant in await self._slides.tenants():
            if not TENANT_PATTERN.fullmatch(tenant):
                continue  # a folder that is none of ours
            for slide_id in await self._slides.ids(tenant):
                acted += await self._look_at_alone(tenant, slide_id)
            if recounts:
                await self._encodes.usage.recount(tenant)
        return acted

    async def _look_at_alone(self, tenant: str, slide_id: str) -> bool:
        """One slide that cannot be looked at must not hide the others."""
        try:
            return await self._look_at(tenant, slide_id)
        except EyepieceError as error:
            log.warning("reconcile_failed", slide=slide_id[:12], code=error.code)
        except RedisError:
            raise
        except Exception as error:
            log.error("reconcile_failed", slide=slide_id[:12], exc_info=error)
        return False

    async def _look_at(self, tenant: str, slide_id: str) -> bool:
        record = await self._slides.find(tenant, slide_id)
        if record is None:
            return await self._remove_orphan(tenant, slide_id)
        self._orphans.discard((tenant, slide_id))
        settled = (record.id, record.generation, record.encoder_id)
        if settled in self._settled:
            return False
        is_ready = await self._embeddings.exists(record)
        await self._tidy(record, None if is_ready or record.error is not None else record.encoder_id)
        if is_ready:
            self._settled.add(settled)
        if is_ready or record.error is not None:
            return False
        return await self._requeue(record)

    async def _tidy(self, record: SlideRecord, keep: str | None) -> None:
        """Remove the parts of unfinished encodes but those of encoder `keep`: a worker died between publishing and
        removing them, or another encoder is served now. Asked of the store once, not every minute."""
        looked = (record.id, record.generation, record.encoder_id, keep)
        if looked not in self._tidied:
            if await remove_parts_of_others(self._encodes.store, record.paths, keep):
                self._count(record, "parts_removed")
            self._tidied.add(looked)

    async def _requeue(self, record: SlideRecord) -> bool:
        jobs = self._encodes.jobs
        if await jobs.find(record) is not None:
            return False
        ended = await jobs.find(record, finished=True)
        if ended is not None and ended.status in (Status.ABORTED, Status.FAILED) and not ended.retryable:
            await self._give_up(record)
            return True
        await self._encodes.progress.forget(record.tenant, record.id)  # how an encode by another model went
        if not await self._encodes.enqueue(record):
            return False
        self._count(record, "requeued")
        return True

    async def _give_up(self, record: SlideRecord) -> None:
        await self._slides.update(record, lambda stored: stored.model_copy(update={"error": GAVE_UP}))
        await self._encodes.progress.append(record.tenant, record.id, Event("failed", GAVE_UP.model_dump()))
        await remove_parts(self._encodes.store, record.paths, record.encoder_id)
        await self._encodes.jobs.cancel(record)  # or the next encode of this slide would be given up for this one
        self._count(record, "gave_up")

    async def _remove_orphan(self, tenant: str, slide_id: str) -> bool:
        """A folder without record is an upload under way, or one that died; the second round tells which."""
        if (tenant, slide_id) not in self._orphans:
            self._orphans.add((tenant, slide_id))
            return False
        self._orphans.discard((tenant, slide_id))
        if not await self._slides.remove_orphan(tenant, slide_id):
            return False
        await self._forgetting.forget(tenant, slide_id)
        self._encodes.metrics.reconciled.labels("orphan_removed").inc()
        return True

    def _count(self, record: SlideRecord, action: str) -> None:
        self._encodes.metrics.reconciled.labels(action).inc()
        log.info("slide_reconciled", slide=record.id[:12], action=action)
