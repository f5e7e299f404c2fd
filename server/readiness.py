"""Ready means warm: what the API depends on, looked at every few seconds.

Redis and the store must answer, and vLLM must have answered a real question about a slide since it came up. Workers
are counted but not required: cached slides can be asked about without any, and workers may scale to zero. Where
`eyepiece up` supervises, a process that keeps exiting makes the server not ready, and /readyz says which.
"""

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np
import structlog
from redis.exceptions import RedisError

from encoders.embedding_file import to_bytes
from encoders.types import SlideEmbedding
from model_store.errors import EyepieceError
from server.ask import Message, Sampling
from server.component_states import crash_loops
from server.embedding_cache import CachedEmbedding
from server.parts import Parts
from server.slide_inputs import SLIDE_TENSOR
from server.slides import Priority, now
from server.worker_presence import count_workers

log = structlog.get_logger(__name__)
_LOOK_EVERY_S = 2.0
_WARM_UP_TENANT = "warm-up"


class Readiness:
    """The last look at every dependency. `run` looks until it is cancelled."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._language_model_warm = False
        self.checks: dict[str, bool] = {"redis": False, "store": False, "language_model": False}
        self.workers_ready = 0
        self.crash_loops: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        """Whether traffic should come here."""
        return not self._parts.drain.begun and not self.crash_loops and all(self.checks.values())

    def report(self) -> dict[str, Any]:
        """The body of /readyz."""
        status = "ready" if self.ready else ("draining" if self._parts.drain.begun else "not_ready")
        checks = {name: "ok" if up else "unavailable" for name, up in self.checks.items()}
        report = {"status": status, "checks": checks, "workers_ready": self.workers_ready}
        return report | {"crash_loops": self.crash_loops} if self.crash_loops else report

    async def run(self) -> None:
        """Look again and again."""
        while True:
            try:
                await self.look()
            except Exception as error:  # a loop that ends would leave the last look standing for ever
                log.error("look_failed", exc_info=error)
                self.checks = dict.fromkeys(self.checks, False)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Ask every dependency once."""
        self.crash_loops = crash_loops(self._parts.settings.crash_loop_file)
        found = await asyncio.gather(self._redis_answers(), self._store_answers(), self._language_model_answers())
        for name, up in zip(self.checks, found, strict=True):
            if up != self.checks[name]:
                log.info("dependency_up" if up else "dependency_down", dependency=name)
            self.checks[name] = up
            self._parts.metrics.dependency_up.labels(name).set(up)

    async def _redis_answers(self) -> bool:
        try:
            self.workers_ready = await count_workers(self._parts.redis)
            await self._measure_queues()
        except RedisError:
            return False
        self._parts.metrics.workers_ready.set(self.workers_ready)
        return True

    async def _measure_queues(self) -> None:
        metrics = self._parts.metrics
        priorities: tuple[Priority, ...] = ("urgent", "routine")
        for priority in priorities:
            depth = await self._parts.jobs.depth(priority)
            metrics.jobs_queued.labels(priority).set(depth.queued)
            metrics.jobs_active.labels(priority).set(depth.active)
            metrics.oldest_queued_s.labels(priority).set(depth.oldest_queued_s)

    async def _store_answers(self) -> bool:
        try:
            await self._parts.store.exists("tenants")
            free_bytes = self._parts.store.free_bytes()
        except (EyepieceError, OSError):
            return False
        if free_bytes is not None:
            self._parts.metrics.store_free_bytes.set(free_bytes)
        return True

    async def _language_model_answers(self) -> bool:
        if not await self._parts.language_model.healthy():
            self._language_model_warm = False
        elif not self._language_model_warm:
            self._language_model_warm = await self._warm_up()
        return self._language_model_warm

    async def _warm_up(self) -> bool:
        """One token about a blank slide of full size, through the very path of a question."""
        slide = self._parts.slide_inputs.make(_WARM_UP_TENANT, blank_embedding(self._parts))
        try:
            answer = await self._parts.language_model.open(
                _WARM_UP_TENANT, [Message("user", "Describe the slide.", slide)], Sampling(1, 0.0)
            )
            try:
                async with aclosing(answer.pieces()) as pieces:
                    _ = [piece async for piece in pieces]
            finally:
                await answer.close()
        except EyepieceError as error:
            log.warning("language_model_warm_up_failed", code=error.code)
            return False
        return True


def blank_embedding(parts: Parts) -> CachedEmbedding:
    """An embedding of zeros in the served model's shape; it belongs to no slide."""
    encoder = parts.manifest.slide_encoder
    tensors = {SLIDE_TENSOR: np.zeros((encoder.slide_tokens, encoder.embed_dim), np.float16)}
    embedding = SlideEmbedding("0" * 64, "0" * 16, tensors, 1, "override", now().isoformat())
    return CachedEmbedding(embedding, to_bytes(embedding))
