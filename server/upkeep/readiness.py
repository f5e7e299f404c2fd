"""Ready means working: what the API depends on, looked at every few seconds, and what can be done without the rest.

Redis must take writes, the store must answer, and the vLLM of at least one model must make tokens
(`server.upkeep.engine_watch`): with one of several away the others still answer, and /readyz says which. Workers are
counted but not required: cached slides can be asked about without any, and workers may scale to zero. Where `eyepiece
up` supervises, a process that keeps exiting makes the server not ready, and /readyz says which.

One dependency that is away does not end everything: a capability needs some of them only, and is asked about by name.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_store.errors import EyepieceError
from server.encoding.derived_jobs import DerivedKind, derived_queue
from server.encoding.jobs import EncodeJobs, depth_of
from server.encoding.worker_presence import count_workers
from server.machine.component_states import crash_loops
from server.slides.slide_record import Priority
from server.storage.slide_store import SlideStore
from server.storage.write_probe import OK, UNAVAILABLE, write_state
from server.telemetry.metrics import Metrics
from server.upkeep.engine_watch import EngineWatch
from server.upkeep.rounds import go_round

log = structlog.get_logger(__name__)
_LOOK_EVERY_S = 2.0
# Beside the priorities of slides: regions, which have a queue of their own.
_DERIVED: tuple[DerivedKind, ...] = ("region", "evidence")
# A server that is stopped is silent for longer than anyone may be left believing in it.
_REDIS_WITHIN_S = 5.0
Capability = Literal["slides", "uploads", "questions"]
# Of a model's vLLM.
ModelState = Literal["ok", "unavailable"]
_NEEDS: dict[Capability, frozenset[str]] = {
    "slides": frozenset({"store"}),
    "uploads": frozenset({"store", "redis"}),
    "questions": frozenset({"store", "language_model"}),
}


class Readiness:
    """The last look at every dependency. `run` looks until it is cancelled."""

    def __init__(
        self,
        redis: Redis,
        store: SlideStore,
        jobs: EncodeJobs,
        engines: Mapping[str, EngineWatch],
        metrics: Metrics,
        is_draining: Callable[[], bool],
        crash_loop_file: Path | None,
    ) -> None:
        self._redis = redis
        self._store = store
        self._jobs = jobs
        self._engines = engines
        self._metrics = metrics
        self._is_draining = is_draining
        self._crash_loop_file = crash_loop_file
        self.checks: dict[str, str] = dict.fromkeys(("redis", "store", "language_model"), UNAVAILABLE)
        self.models: dict[str, ModelState] = dict.fromkeys(engines, UNAVAILABLE)
        self.workers_ready = 0
        self.crash_loops: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        """Whether everything works, or all but some of several models."""
        return not self._is_draining() and not self.crash_loops and set(self.checks.values()) == {OK}

    def can(self, capability: Capability) -> bool:
        """Whether requests of this kind should come here: slides (lists, downloads), uploads, questions."""
        return not self._is_draining() and all(self.checks[name] == OK for name in _NEEDS[capability])

    def report(self) -> dict[str, Any]:
        """The body of /readyz."""
        status = "ready" if self.ready else ("draining" if self._is_draining() else "not_ready")
        report = {
            "status": status,
            "checks": self.checks,
            "models": self.models,
            "capabilities": {name: self.can(name) for name in get_args(Capability)},
            "workers_ready": self.workers_ready,
        }
        return report | {"crash_loops": self.crash_loops} if self.crash_loops else report

    async def run(self) -> None:
        """Look again and again."""
        try:
            await go_round(self._look_or_nothing, _LOOK_EVERY_S, "look_failed")
        finally:
            await asyncio.gather(*(engine.aclose() for engine in self._engines.values()))

    async def _look_or_nothing(self) -> None:
        try:
            await self.look()
        except Exception:
            self.checks = dict.fromkeys(self.checks, UNAVAILABLE)
            self.models = dict.fromkeys(self.models, UNAVAILABLE)
            raise

    async def look(self) -> None:
        """Ask every dependency once; what one says is known at once, whoever is silent."""
        self.crash_loops = crash_loops(self._crash_loop_file)
        await asyncio.gather(self._look_at_redis(), self._look_at_store(), self._look_at_models())

    def _note(self, name: str, state: str) -> None:
        if state != self.checks[name]:
            log.info("dependency_up" if state == OK else "dependency_down", dependency=name, reason=state)
        self.checks[name] = state
        self._metrics.dependency_up.labels(name).set(state == OK)

    async def _look_at_redis(self) -> None:
        try:
            async with asyncio.timeout(_REDIS_WITHIN_S):
                self._note("redis", await write_state(self._redis))
                self.workers_ready = await count_workers(self._redis)
                for name in self.models:
                    self._metrics.workers_ready.labels(name).set(await count_workers(self._redis, name))
                await self._measure_queues()
        except (RedisError, TimeoutError):
            self._note("redis", UNAVAILABLE)
            return

    async def _measure_queues(self) -> None:
        priorities: tuple[Priority, ...] = ("urgent", "routine")
        for number, name in enumerate(self.models):
            depths = {priority: await self._jobs.depth(priority, name) for priority in priorities}
            derived = {
                kind: await depth_of(derived_queue(self._redis, kind, name if number else "")) for kind in _DERIVED
            }
            for priority, depth in [*depths.items(), *derived.items()]:
                self._metrics.jobs_queued.labels(name, priority).set(depth.queued)
                self._metrics.jobs_active.labels(name, priority).set(depth.active)
                self._metrics.oldest_queued_s.labels(name, priority).set(depth.oldest_queued_s)

    async def _look_at_models(self) -> None:
        await asyncio.gather(*(self._look_at_model(name, engine) for name, engine in self._engines.items()))
        self._note("language_model", OK if OK in self.models.values() else UNAVAILABLE)

    async def _look_at_model(self, name: str, engine: EngineWatch) -> None:
        state: ModelState = OK if await engine.look() else UNAVAILABLE
        if state != self.models[name]:
            log.info("model_up" if state == OK else "model_down", model=name)
        self.models[name] = state
        self._metrics.model_up.labels(name).set(state == OK)

    async def _look_at_store(self) -> None:
        try:
            await self._store.exists("tenants")
            free_bytes = self._store.free_bytes()
        except (EyepieceError, OSError):
            self._note("store", UNAVAILABLE)
            return
        self._note("store", OK)
        if free_bytes is not None:
            self._metrics.store_free_bytes.set(free_bytes)
