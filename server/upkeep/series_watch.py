"""DICOM series that have been quiet for long enough become slides."""

import structlog
from redis.asyncio import Redis

from model_store.errors import EyepieceError
from server.flow.receive_series import ReceiveSeries
from server.slides.catalogue import SlideCatalogue
from server.storage.slide_store import TENANT_PATTERN
from server.upkeep.rounds import go_round

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:series-watch"
_EVERY_S = 2.0
_WALK_EVERY_S = 300


class SeriesWatch:
    """Every replica looks at what is due; one of them, now and then, for what nobody remembers."""

    def __init__(self, redis: Redis, slides: SlideCatalogue, series: ReceiveSeries) -> None:
        self._redis = redis
        self._slides = slides
        self._series = series

    async def run(self) -> None:
        """Look after look until cancelled; a dependency that is away costs one."""
        await go_round(self._look, _EVERY_S, "series_watch_failed")

    async def _look(self) -> None:
        if await self._redis.set(_LOCK_KEY, "1", nx=True, ex=_WALK_EVERY_S - 1):
            await self.walk()
        await self._series.make_due()

    async def walk(self) -> None:
        """Every tenant; what goes wrong for one is none of the others' business."""
        for tenant in await self._slides.tenants():
            if TENANT_PATTERN.fullmatch(tenant):  # else a folder that is none of ours
                try:
                    await self._series.find_quiet(tenant)
                except EyepieceError as error:
                    log.warning("series_watch_failed", code=error.code)
