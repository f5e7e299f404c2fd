"""Imports go on: every replica takes what is due; one of them, now and then, looks for what nobody remembers."""

import asyncio

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_store.errors import EyepieceError
from server.flow.pull_series import PullSeries
from server.slides.catalogue import SlideCatalogue
from server.storage.slide_store import TENANT_PATTERN
from server.upkeep.rounds import go_round

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:import-watch"
_EVERY_S = 1.0
_WALK_EVERY_S = 300
# Each fills a line to an archive by itself.
_AT_ONCE = 2
_FAILED = "imports_wait"


class ImportWatch:
    """Runs in every API process. Imports that are over are forgotten after `kept_s`."""

    def __init__(self, redis: Redis, slides: SlideCatalogue, pulling: PullSeries, kept_s: float) -> None:
        self._redis = redis
        self._slides = slides
        self._pulling = pulling
        self._kept_s = kept_s
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; then those under way are left to another process."""
        try:
            await go_round(self._look, _EVERY_S, _FAILED)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def walk(self) -> None:
        """Every tenant; what goes wrong for one is none of the others' business."""
        for tenant in await self._slides.tenants():
            if TENANT_PATTERN.fullmatch(tenant):  # else a folder that is none of ours
                try:
                    await self._pulling.find_forgotten(tenant, self._kept_s)
                except EyepieceError as error:
                    log.warning(_FAILED, code=error.code)

    async def _look(self) -> None:
        if await self._redis.set(_LOCK_KEY, "1", nx=True, ex=_WALK_EVERY_S - 1):
            await self.walk()
        if len(self._running) < _AT_ONCE:
            for tenant, import_id in await self._pulling.queue.take(_AT_ONCE - len(self._running)):
                task = asyncio.create_task(self._go_on(tenant, import_id))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _go_on(self, tenant: str, import_id: str) -> None:
        try:
            await self._pulling.run(tenant, import_id)
        except (RedisError, EyepieceError) as error:  # its lease ends, and it is tried again
            log.warning(_FAILED, error=type(error).__name__)
        except Exception as error:  # likewise: one import must not end the others
            log.error(_FAILED, exc_info=error)
