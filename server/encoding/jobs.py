"""Encode jobs: SAQ on Redis, one job per tenant, slide and encoder.

Two queues for each model, `urgent` and `routine`, read by one worker (`server.encoding.encode_worker`): SAQ's own
priorities exist only on Postgres. Delivery is at least once, so an encode is idempotent: it publishes under
content-derived names.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from saq import Job, Status
from saq.queue.redis import RedisQueue

from server.encoding.queue_order import COUNT_WAITING, TURNS_KEY, Waiting, slides_ahead
from server.errors import Overloaded, QueueUnavailable
from server.settings import Settings
from server.slides.slide_record import Priority, SlideRecord
from server.storage.write_probe import OK, write_state
from server.telemetry.tracing import trace_headers

ENCODE = "encode_slide"
# The key in a job's `meta` under which the trace of whoever queued it goes on.
TRACE = "trace"
UNFINISHED = (Status.NEW, Status.QUEUED, Status.ACTIVE)
# A slide with more tiles, a large one already, has been more than one turn.
TILES_OF_A_TURN = 20_000
# What a finished job leaves behind is kept so long for the reconciler to see that it gave up.
_FINISHED_TTL_S = 86_400

log = structlog.get_logger(__name__)
Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class QueueDepth:
    """How much waits and runs, and how old the oldest waiting job is."""

    queued: int
    active: int
    oldest_queued_s: float


@dataclass(frozen=True)
class Standing:
    """How a tenant's slides stand in the queue: those in hand, those that wait, and how many of other tenants are taken
    before its first one if no more come."""

    running: int
    waiting: int
    ahead: int


class JobQueue(RedisQueue):
    """SAQ's queue, of one model and priority, in which a job that cannot be read is none: it stops nobody who asks for
    another, and what lies there is thrown away when its slide is queued again or deleted."""

    turns_key = TURNS_KEY

    def deserialize(
        self, payload: dict[str, Any] | str | bytes | None, status: Status | str | None = None
    ) -> Job | None:
        """The job; None, and a line in the log, for what is damaged or another release's."""
        try:
            return super().deserialize(payload, status)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("job_unreadable", error=type(error).__name__)
            return None

    async def charge(self, tenant: str, tiles: int) -> None:
        """Take the turns from a tenant that a slide of so many tiles was, beyond the one that was taken for it: others
        who wait go first so many times."""
        if extra := tiles // TILES_OF_A_TURN:
            await self.redis.hincrby(self.turns_key, tenant, extra)

    async def put(self, job: Job) -> bool:
        """Queue a job, in the place of one under its key that cannot be read; False when there is one that can."""
        if await self.enqueue(job) is not None:
            return True
        return await self.discard_unreadable(job.key) and await self.enqueue(job) is not None

    async def unfinished_keys(self) -> list[str]:
        """The keys of its jobs that are not over."""
        found: Any = await self.redis.zrange(self.namespace("incomplete"), 0, -1)
        return [self.job_key_from_id(job_id.decode()) for job_id in found]

    async def forget(self, job_key: str) -> None:
        """Take a job out of the queue, or stop it within about a second; nothing of it is kept."""
        job = await self.job(job_key)
        if job is None:
            await self.discard_unreadable(job_key)
            return
        runs, kept_s = job.status in (Status.ACTIVE, Status.ABORTING), job.ttl if job.ttl > 0 else _FINISHED_TTL_S
        job.ttl = -1  # SAQ's word for: delete it when it ends
        if job.status in UNFINISHED:
            await job.abort("the slide was deleted")
        if runs:
            await self.redis.expire(job.id, kept_s)  # should its worker be dead
        else:
            await self.redis.delete(job.id, job.abort_id)

    async def discard_unreadable(self, job_key: str) -> bool:
        """Remove a job that cannot be read from all of the queue's lists; False when there is none."""
        job_id = self.job_id(job_key)
        content: Any = await self.redis.get(job_id)
        if content is None or self.deserialize(content) is not None:
            return False
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.zrem(self.namespace("incomplete"), job_id)
            for name in ("queued", "active"):
                pipe.lrem(self.namespace(name), 0, job_id)
            pipe.delete(job_id)
            await pipe.execute()
        return True


class Jobs(ABC, Generic[Wanted]):
    """Jobs of one kind: each makes something that is wanted, and none is queued twice."""

    # What is said while Redis does not answer.
    unavailable: ClassVar[str]

    async def enqueue(self, wanted: Wanted) -> bool:
        """Queue it; False when it is queued or running already.

        Raises:
            Overloaded: too many jobs wait.
            QueueUnavailable: Redis does not answer.
        """
        try:
            live = await self.find(wanted)
            if live is not None and not await self._moves(wanted, live):
                return False
            await self._require_room_for(wanted)
            queue, job = self._message(wanted)
            return await queue.put(job)
        except RedisError as error:
            raise QueueUnavailable(self.unavailable) from error

    @abstractmethod
    async def find(self, wanted: Wanted, *, finished: bool = False) -> Job | None:
        """Its unfinished job, or with `finished` also one that ended lately."""

    async def is_running(self, wanted: Wanted) -> bool:
        """Whether a worker has it; False while Redis does not answer."""
        try:
            job = await self.find(wanted)
        except RedisError:
            return False
        return job is not None and job.status == Status.ACTIVE

    async def _moves(self, wanted: Wanted, live: Job) -> bool:
        """Whether its unfinished job gives way to another one; then it is taken out here."""
        return False

    @abstractmethod
    async def _require_room_for(self, wanted: Wanted) -> None:
        """Raises Overloaded."""

    @abstractmethod
    def _message(self, wanted: Wanted) -> tuple[JobQueue, Job]:
        """The job, and the queue that it belongs into."""


class EncodeJobs(Jobs[SlideRecord]):
    """Enqueue, find and cancel. A routine job that still waits is promoted when its record became urgent; what cannot
    be queued is found by the reconciler."""

    unavailable = "The job queue does not answer; the slide is kept, try again."

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        others = [served.name for served in settings.served_models[1:]]
        self._queues = {model: _queues_of(redis, model) for model in ("", *others)}
        self._count_waiting = redis.register_script(COUNT_WAITING)

    @property
    def queues(self) -> dict[Priority, JobQueue]:
        """The default model's."""
        return self._queues[""]

    def queues_of(self, model: str) -> dict[Priority, JobQueue]:
        """Those of a model by name; "" is the default."""
        return self._queues.get(model, self.queues)

    def _all(self) -> list[JobQueue]:
        return [queue for queues in self._queues.values() for queue in queues.values()]

    async def find(self, wanted: SlideRecord, *, finished: bool = False) -> Job | None:
        """The slide's unfinished job, or with `finished` also one that ended lately."""
        for priority, queue in self.queues_of(wanted.model).items():
            job = await queue.job(_job_key(wanted, priority))
            if job is not None and (finished or job.status in UNFINISHED):
                return job
        return None

    async def slides_with_job(self) -> set[tuple[str, str]]:
        """Tenant and id of every slide that waits or is encoded, for any model, in two questions to Redis for each
        model however many they are."""
        keys = [key for queue in self._all() for key in await queue.unfinished_keys()]
        return {(tenant, slide_id) for _, tenant, slide_id, *_ in (key.split(":") for key in keys)}

    async def cancel(self, record: SlideRecord) -> None:
        """Take the slide's job out of the queue, or stop it within about a second; nothing of it is kept."""
        for priority, queue in self.queues_of(record.model).items():
            await queue.forget(_job_key(record, priority))

    async def depth(self, priority: Priority, model: str = "") -> QueueDepth:
        """One queue's gauges."""
        return await depth_of(self.queues_of(model)[priority])

    async def standing(self, tenant: str) -> Standing:
        """Where a tenant's slides stand; those ahead are counted in the default model's queue.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        lists = [queue.namespace("queued") for queue in self.queues.values()]
        try:
            urgent, routine, turns = [
                {name.decode(): int(value) for name, value in zip(found[::2], found[1::2], strict=True)}
                for found in await self._count_waiting(keys=[*lists, TURNS_KEY])
            ]
            unfinished = sum([await _count_of(queue, tenant) for queue in self._all()])
            running = sum([await _running_of(queue, tenant) for queue in self._all()])
        except RedisError as error:
            raise QueueUnavailable("The job queue does not answer; try again shortly.") from error
        ahead = slides_ahead(Waiting(urgent, routine, turns), tenant)
        return Standing(running, max(0, unfinished - running), ahead)

    async def require_room(self, tenant: str) -> None:
        """Refuse an upload before its first byte when its job would not be taken.

        Raises:
            Overloaded: too many jobs wait.
            QueueUnavailable: Redis does not answer, or takes no writes.
        """
        try:
            await self._require_room(tenant)
            if await write_state(self._redis) != OK:
                raise QueueUnavailable("The job queue accepts no new jobs; ask the operator to check Redis.")
        except RedisError as error:
            raise QueueUnavailable("The job queue does not answer; try again shortly.") from error

    async def _moves(self, wanted: SlideRecord, live: Job) -> bool:
        promoted = wanted.priority == "urgent" and live.status == Status.QUEUED
        if not promoted or live.queue is self.queues_of(wanted.model)["urgent"]:
            return False
        await live.abort("promoted")
        return True

    async def _require_room_for(self, wanted: SlideRecord) -> None:
        await self._require_room(wanted.tenant)

    async def _require_room(self, tenant: str) -> None:
        waiting = sum([await queue.count("incomplete") for queue in self._all()])
        if waiting >= self._settings.max_queued_jobs:
            raise Overloaded("Too many slides are waiting to be encoded; try again later.", retry_after_s=60)
        if waiting >= self._settings.max_queued_jobs_per_tenant:
            own = sum([await _count_of(queue, tenant) for queue in self._all()])
            if own >= self._settings.max_queued_jobs_per_tenant:
                raise Overloaded("Too many of your slides are waiting to be encoded.", retry_after_s=60)

    def _message(self, wanted: SlideRecord) -> tuple[JobQueue, Job]:
        return self.queues_of(wanted.model)[wanted.priority], self._job(wanted)

    def _job(self, record: SlideRecord) -> Job:
        settings = self._settings
        return Job(
            function=ENCODE,
            key=_job_key(record, record.priority),
            kwargs={
                "tenant": record.tenant,
                "slide_id": record.id,
                "encoder_id": record.encoder_id,
                "generation": record.generation,
                **({"model": record.model} if record.model else {}),
            },
            timeout=settings.job_timeout_s,
            heartbeat=settings.job_heartbeat_s,
            retries=settings.job_attempts,
            retry_delay=1.0,
            retry_backoff=60.0,
            ttl=_FINISHED_TTL_S,
            meta={TRACE: trace_headers()},
        )


def _queues_of(redis: Redis, model: str) -> dict[Priority, JobQueue]:
    """A model's queues; the default's have no name of a model, whichever it is."""
    priorities: tuple[Priority, ...] = ("urgent", "routine")
    queues = {it: JobQueue(redis, name=f"eyepiece-{it}{model and f'-{model}'}") for it in priorities}
    for queue in queues.values():
        queue.turns_key = f"{TURNS_KEY}:{model}" if model else TURNS_KEY
    return queues


def _job_key(record: SlideRecord, priority: Priority) -> str:
    """SAQ's abort marker lacks the queue's name, hence it is in the key; `generation` keeps a cancelled run of a
    deleted slide from finishing the job of the same slide uploaded again."""
    return f"{priority}:{record.tenant}:{record.id}:{record.encoder_id}:{record.generation}"


def run_of(job: Job) -> str:
    """Names what a job was queued for this once; the same for all its attempts."""
    return f"{job.key}:{job.queued}"


async def depth_of(queue: JobQueue) -> QueueDepth:
    """A queue's gauges."""
    head = await _head(queue)
    age_s = 0.0 if head is None else max(0.0, time.time() - head.queued / 1000)
    return QueueDepth(await queue.count("queued"), await queue.count("active"), age_s)


async def _head(queue: RedisQueue) -> Job | None:
    head: Any = await queue.redis.lindex(queue.namespace("queued"), 0)
    return None if head is None else await queue.job(queue.job_key_from_id(head.decode()))


async def _count_of(queue: JobQueue, tenant: str) -> int:
    return sum(key.split(":")[1] == tenant for key in await queue.unfinished_keys())


async def _running_of(queue: RedisQueue, tenant: str) -> int:
    found: Any = await queue.redis.lrange(queue.namespace("active"), 0, -1)
    return sum(queue.job_key_from_id(job_id.decode()).split(":")[1] == tenant for job_id in found)
