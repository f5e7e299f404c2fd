"""Slides go when the time is over that the operator keeps them for."""

from collections.abc import Callable
from datetime import timedelta

import structlog
from redis.asyncio import Redis

from model_store.errors import EyepieceError
from server.flow.expire_slides import ExpireSlides, Noting
from server.slides.catalogue import SlideCatalogue
from server.slides.due_slides import DueSlide, DueSlides
from server.slides.slide_record import now
from server.storage.slide_store import TENANT_PATTERN
from server.upkeep.rounds import go_round

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:retention"
_EVERY_S = 3600


class Retention:
    """One of the API replicas looks every hour; `days_of` says for how long a tenant's slides are kept, 0 for ever."""

    def __init__(
        self, redis: Redis, slides: SlideCatalogue, story: ExpireSlides, days_of: Callable[[str], int], noting: Noting
    ) -> None:
        self._redis = redis
        self._slides = slides
        self._story = story
        self._days_of = days_of
        self._noting = noting

    async def run(self) -> None:
        """Round after round until cancelled; a dependency that is away costs one."""
        await go_round(self._round_once, _EVERY_S, "retention_failed")

    async def _round_once(self) -> None:
        if await self._redis.set(_LOCK_KEY, "1", nx=True, ex=_EVERY_S - 1):
            await self.round()

    async def round(self) -> int:
        """Every tenant whose slides are not kept for ever; how many slides went. What goes wrong for one is none of the
        others' business."""
        expired = 0
        for tenant, days in await self._limited():
            try:
                count = await self._story.expire(tenant, now() - timedelta(days=days), self._noting)
            except EyepieceError as error:
                log.warning("retention_failed", code=error.code)
                continue
            if count:
                log.info("slides_expired", count=count)
            expired += count
        return expired

    async def due(self) -> list[DueSlides]:
        """What the next round would delete, tenant by tenant; nothing is deleted.

        Raises:
            EyepieceError: of the store.
        """
        found = []
        for tenant, days in await self._limited():
            before = now() - timedelta(days=days)
            slides = [
                DueSlide(record.id, record.created_at, await self._story.bytes_of(record))
                async for record in self._story.due(tenant, before)
            ]
            found.append(DueSlides(tenant, days, tuple(slides)))
        return found

    async def _limited(self) -> list[tuple[str, int]]:
        """The tenants whose slides are not kept for ever, and for how many days they are."""
        tenants = [tenant for tenant in await self._slides.tenants() if TENANT_PATTERN.fullmatch(tenant)]
        return [(tenant, self._days_of(tenant)) for tenant in tenants if self._days_of(tenant)]
