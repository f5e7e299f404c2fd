"""No stored slide is forgotten: a slide with neither embedding nor job is queued again, at start and every minute.

That, not Redis' append-only file, is the guarantee: Redis may lose its last second. A job that was killed as often
as it may be is turned into a failure, so that a poisonous slide does not come back for ever.
"""

import asyncio

import structlog
from redis.exceptions import RedisError
from saq import Status

from model_store.errors import EyepieceError
from server.flow import enqueue
from server.parts import Parts
from server.progress import Event
from server.slide_store import SlidePaths
from server.slides import SlideError, SlideRecord

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:reconciler"
GAVE_UP = SlideError(
    code="unreadable_slide",
    detail="Encoding this slide stopped its worker every time it was tried; check the file, then encode it again.",
)


class Reconciler:
    """One of the API replicas does the round; the others see that it was done."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # A slide seen ready stays so until its record changes; this saves asking the store every minute.
        self._settled: set[tuple[str, str, str]] = set()
        self._orphans: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Round after round until cancelled; a dependency that is away costs one round."""
        every_s = self._parts.settings.reconcile_every_s
        while True:
            try:
                if await self._parts.redis.set(_LOCK_KEY, "1", nx=True, ex=max(1, every_s - 1)):
                    await self.round()
            except (RedisError, EyepieceError) as error:
                log.warning("reconcile_failed", error=type(error).__name__)
            await asyncio.sleep(every_s)

    async def round(self) -> int:
        """Look at every slide of every tenant; how many were acted upon."""
        acted = 0
        for tenant in await self._parts.slides.tenants():
            for slide_id in await self._parts.slides.ids(tenant):
                acted += await self._look_at(tenant, slide_id)
        return acted

    async def _look_at(self, tenant: str, slide_id: str) -> bool:
        record = await self._parts.slides.find(tenant, slide_id)
        if record is None:
            return await self._remove_orphan(tenant, slide_id)
        settled = (record.id, record.generation, record.encoder_id)
        if settled in self._settled:
            return False
        if await self._parts.embeddings.exists(record):
            self._settled.add(settled)
            return False
        if record.error is not None:
            return False
        return await self._requeue(record)

    async def _requeue(self, record: SlideRecord) -> bool:
        job = await self._parts.jobs.find(record, finished=True)
        if job is not None and job.status in (Status.ABORTED, Status.FAILED) and not job.retryable:
            await self._give_up(record)
            return True
        if not await enqueue(record, self._parts):
            return False
        self._count(record, "requeued")
        return True

    async def _give_up(self, record: SlideRecord) -> None:
        await self._parts.slides.update(record, lambda stored: stored.model_copy(update={"error": GAVE_UP}))
        await self._parts.progress.append(record.tenant, record.id, Event("failed", GAVE_UP.model_dump()))
        self._count(record, "gave_up")

    async def _remove_orphan(self, tenant: str, slide_id: str) -> bool:
        """A folder without record is an upload under way, or one that died; the second round tells which."""
        if (tenant, slide_id) not in self._orphans:
            self._orphans.add((tenant, slide_id))
            return False
        self._orphans.discard((tenant, slide_id))
        async with self._parts.slides.lock(tenant, slide_id):
            if await self._parts.slides.find(tenant, slide_id) is not None:
                return False
            await self._parts.store.delete_folder(SlidePaths(tenant, slide_id).folder)
        self._parts.metrics.reconciled.labels("orphan_removed").inc()
        return True

    def _count(self, record: SlideRecord, action: str) -> None:
        self._parts.metrics.reconciled.labels(action).inc()
        log.info("slide_reconciled", slide=record.id[:12], action=action)
