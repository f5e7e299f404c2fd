"""The SAQ worker of the queues of one or several models, for whatever encodes: a worker process has the models, tests
have a fake."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, WatchError
from saq import Job, Status, Worker
from saq.queue.redis import RedisQueue
from saq.types import Context

from server.encoding.derived_jobs import DerivedJobs
from server.encoding.jobs import ENCODE, EncodeJobs, JobQueue
from server.encoding.queue_order import TAKE_NEXT_JOB, TURNS_TTL_S, URGENT_IN_A_ROW

log = structlog.get_logger(__name__)
_IDLE_WAIT_S = 0.5
# Each kind has a place of its own beside the slides: a region is made in a moment, and waits for no slide and no
# evidence. They take turns with the device, for as long as one embedding takes.
_OF_A_KIND_AT_ONCE = 1
_REDIS_AWAY_WAIT_S = 1.0
# A cancelled encode ends at its next batch of tiles.
_CANCEL_WITHIN_S = 20.0
_OVER = (Status.ABORTED, Status.COMPLETE, Status.FAILED)
_LOST = "its worker stopped reporting"


@dataclass(frozen=True)
class DerivedWork:
    """Where things of one kind wait, and what makes one."""

    jobs: DerivedJobs
    run: Callable[..., Awaitable[str]]


def encode_worker(
    jobs: EncodeJobs,
    run: Callable[..., Awaitable[str]],
    sweep_every_s: int,
    *,
    slides_at_once: int = 1,
    models: Sequence[str] = ("",),
    derived: Sequence[DerivedWork] = (),
    abort_every_s: float = 1.0,
) -> Worker[Context]:
    """A worker for `slides_at_once` slides of these models, "" is the default, and beside them for what is made of
    stored features; `start()` it. Stopping it hands all of them back to the queue."""
    return Worker(
        WorkerQueue(jobs, models, derived=[work.jobs for work in derived], slides_at_once=slides_at_once),
        [(ENCODE, run), *((work.jobs.function, work.run) for work in derived)],
        concurrency=slides_at_once + _OF_A_KIND_AT_ONCE * len(derived),
        timers={"schedule": 1, "worker_info": 3600, "sweep": sweep_every_s, "abort": abort_every_s},  # type: ignore[arg-type]  # SAQ takes fractions too
        cancellation_hard_deadline_s=_CANCEL_WITHIN_S,
    )


class WorkerQueue(JobQueue):
    """The routine queue with the urgent one before it, as the one queue that a SAQ worker reads; in both, tenants take
    turns. A worker of several models takes from their queues in turn.

    What is made of stored features has queues before both and a place of its own for each kind: slides take
    `slides_at_once` of the worker's places, so that none waits for another kind.

    A job keeps belonging to the queue it was put into: only what the worker asks of *its* queue is widened.

    The jobs of dead workers are put back, each in one transaction that anybody who touches the job meanwhile stops.
    SAQ (0.26) takes a lost job out of all lists, waits for five seconds of silence, and then puts it back as it had
    read it. Is the worker that does this killed meanwhile, the job is in no list, its attempts are forgotten and its
    record stays for ever; does the worker that had the job end it meanwhile, that is undone.
    """

    def __init__(
        self,
        jobs: EncodeJobs,
        models: Sequence[str] = ("",),
        *,
        derived: Sequence[DerivedJobs] = (),
        slides_at_once: int | None = None,
    ) -> None:
        pairs = [jobs.queues_of(model) for model in models]
        own = pairs[0]["routine"]
        super().__init__(own.redis, name=own.name)
        self.turns_key = own.turns_key
        self._derived = [_Lane([jobs.queue_of(model) for model in models]) for jobs in derived]
        of_slides = (queue for pair in pairs for queue in pair.values())
        self._queues: tuple[JobQueue, ...] = (*of_slides, *(queue for lane in self._derived for queue in lane.queues))
        self._for_slides = _Places(slides_at_once)
        self._others = tuple(queue for queue in self._queues if queue is not own)
        self._take_next_job = own.redis.register_script(TAKE_NEXT_JOB)
        self._pairs = deque((pair["urgent"], self if pair["routine"] is own else pair["routine"]) for pair in pairs)
        self._being_taken: set[str] = set()

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> Job | None:  # noqa: ASYNC109 - SAQ's
        """The next job, or None after a short wait, so that an urgent one never waits behind an empty queue.

        While Redis is away it waits instead of raising: SAQ would ask again at once, thousands of times a second.
        """
        try:
            job = await self._take()
            if job is None:
                await self._wait_for_one()
                job = await self._take()
            return job
        except RedisError as error:
            log.warning("queue_unavailable", error=type(error).__name__)
            await asyncio.sleep(_REDIS_AWAY_WAIT_S)
            return None

    async def _wait_for_one(self) -> None:
        """Until there may be a job, or for a moment. One of those that wait looks at each kind, others at slides."""
        free = [lane for lane in self._derived if lane.places.are_free]
        lane = next((lane for lane in free if not lane.is_watched), None)
        if lane is None and free and not self._for_slides.are_free:
            lane = free[0]
        queued = (self if lane is None else lane.queues[0]).namespace("queued")
        # A move of the first job to where it is: it waits for one, and leaves the choice to the script.
        with contextlib.nullcontext() if lane is None else lane.watched():
            await self.redis.blmove(queued, queued, _IDLE_WAIT_S, "LEFT", "LEFT")  # type: ignore[arg-type]

    async def _take(self) -> Job | None:
        """What is made of stored features, or else the next slide, where there is a place for it."""
        for lane in self._derived:
            job = await lane.places.fill(partial(self._next_derived, lane))
            if job is not None:
                return job
        return await self._for_slides.fill(self._next_slide)

    async def _next_derived(self, lane: "_Lane") -> Job | None:
        for _ in range(len(lane.queues)):
            queue = lane.queues[0]
            lane.queues.rotate(-1)
            job = await self._next_of(queue, None)
            if job is not None:
                return job
        return None

    async def _next_slide(self) -> Job | None:
        for _ in range(len(self._pairs)):
            urgent, routine = self._pairs[0]
            self._pairs.rotate(-1)
            job = await self._next_of(urgent, routine)
            if job is not None:
                return job
        return None

    async def _next_of(self, first: JobQueue, second: JobQueue | None) -> Job | None:
        """The job whose turn it is of one or two queues; the turns are the second's."""
        named = ("queued", "active")
        seconds = [second.namespace(name) for name in named] if second else [first.namespace("none")] * 2
        keys = [*(first.namespace(name) for name in named), *seconds, (second or first).turns_key]
        taken: Any = await self._take_next_job(keys=keys, args=[URGENT_IN_A_ROW, TURNS_TTL_S])
        if taken is None:
            return None
        queue = first if taken[0] or second is None else second
        return await queue.job(queue.job_key_from_id(taken[1].decode()))

    async def jobs(self, job_keys: Iterable[str]) -> list[Job | None]:
        """The jobs behind the keys, in order; SAQ's abort check reads them."""
        keys = list(job_keys)
        found = await super().jobs(keys)
        for queue in self._others:
            found = [first or second for first, second in zip(found, await queue.jobs(keys), strict=True)]
        return found

    async def finish_abort(self, job: Job) -> None:
        """End an aborted job in its own queue."""
        if job.queue is self:
            await super().finish_abort(job)
        else:
            await job.get_queue().finish_abort(job)

    async def schedule(self, lock: int = 1) -> list[str]:
        """Move delayed retries of all its queues to their lists."""
        moved = [job_id for queue in self._others for job_id in await queue.schedule(lock)]
        return moved + await super().schedule(lock)

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        """Put lost jobs of all its queues back, unless another worker looked in the last `lock` seconds; their ids."""
        queues = [it for it in self._queues if await it.redis.set(it.namespace("sweep"), "1", nx=True, ex=lock)]
        active: list[tuple[RedisQueue, Any]] = [(queue, job_id) for queue in queues for job_id in await _active(queue)]
        seen, self._being_taken = self._being_taken, set()
        return [job_id.decode() for queue, job_id in active if await self._put_back(queue, job_id.decode(), seen)]

    async def _put_back(self, queue: RedisQueue, job_id: str, being_taken: set[str]) -> bool:
        async with queue.redis.pipeline(transaction=True) as pipe:
            await pipe.watch(job_id)
            job = queue.deserialize(await pipe.get(job_id))
            if job is not None and job.status == Status.QUEUED and job_id not in being_taken:
                self._being_taken.add(job_id)  # its worker says so in a moment, or is dead at the next look
                return False
            if job is not None and job.status != Status.QUEUED and not _is_silent(job):
                return False
            pipe.multi()  # type: ignore[no-untyped-call]
            pipe.lrem(queue.namespace("active"), 0, job_id)
            _requeue_or_abort(pipe, queue, job_id, job)
            try:
                await pipe.execute()
            except WatchError:
                return False
        return True


class _Places:
    """How many jobs of a kind a worker has at once; None for any number. A place is free again when the task ends that
    took the job: SAQ has one for each."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._taken = set[asyncio.Task[Any] | None]()

    @property
    def are_free(self) -> bool:
        return self._most is None or len(self._taken) < self._most

    async def fill(self, take: Callable[[], Awaitable[Job | None]]) -> Job | None:
        """What `take` finds, for a free place."""
        if not self.are_free:
            return None
        task, job = asyncio.current_task(), None
        self._taken.add(task)
        try:
            job = await take()
        finally:
            if job is None or task is None:
                self._taken.discard(task)
            else:
                task.add_done_callback(self._taken.discard)
        return job


class _Lane:
    """The queues of one kind, by model, and the worker's place for it."""

    def __init__(self, queues: Sequence[JobQueue]) -> None:
        self.queues = deque(queues)
        self.places = _Places(_OF_A_KIND_AT_ONCE)
        self.is_watched = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody waits for a job of this kind."""
        was, self.is_watched = self.is_watched, True
        try:
            yield
        finally:
            self.is_watched = was


async def _active(queue: RedisQueue) -> list[bytes]:
    found: Any = await queue.redis.lrange(queue.namespace("active"), 0, -1)
    return list(found)


def _is_silent(job: Job) -> bool:
    """Whether the job's worker has missed its heartbeats, or its time is up."""
    now_ms = time.time() * 1000
    return now_ms - job.touched > job.heartbeat * 1000 or now_ms - job.started > job.timeout * 1000


def _requeue_or_abort(pipe: Pipeline, queue: RedisQueue, job_id: str, job: Job | None) -> None:
    """Queued again after its delay, or aborted; a job that is over already stays what it is."""
    incomplete = queue.namespace("incomplete")
    if job is None:
        pipe.zrem(incomplete, job_id)
    elif job.status in _OVER:
        pipe.expire(job_id, max(1, job.ttl))
    elif job.retryable and job.status != Status.ABORTING:
        job.status, job.error, job.started, job.touched = Status.QUEUED, _LOST, 0, int(time.time() * 1000)
        pipe.zadd(incomplete, {job_id: time.time() + job.next_retry_delay()})
        pipe.set(job_id, queue.serialize(job))
    else:
        job.status, job.error, job.completed = Status.ABORTED, _LOST, int(time.time() * 1000)
        pipe.zrem(incomplete, job_id)
        pipe.set(job_id, queue.serialize(job), ex=max(1, job.ttl))
