"""The SAQ worker of both queues, for whatever encodes: a worker process has the models, tests have a fake."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError
from saq import Job, Status, Worker
from saq.queue.redis import RedisQueue
from saq.types import Context

from server.encoding.jobs import ENCODE, EncodeJobs, PrioritisedQueue

# A cancelled encode ends at its next batch of tiles.
_CANCEL_WITHIN_S = 20.0
_OVER = (Status.ABORTED, Status.COMPLETE, Status.FAILED)
_LOST = "its worker was not heard of any more"


def encode_worker(
    jobs: EncodeJobs,
    run: Callable[..., Awaitable[str]],
    sweep_every_s: int,
    *,
    slides_at_once: int = 1,
    abort_every_s: float = 1.0,
) -> Worker[Context]:
    """A worker for `slides_at_once` slides; `start()` it. Stopping it hands all of them back to the queue."""
    return Worker(
        RedeliveringQueue(jobs),
        [(ENCODE, run)],
        concurrency=slides_at_once,
        timers={"schedule": 1, "worker_info": 3600, "sweep": sweep_every_s, "abort": abort_every_s},  # type: ignore[arg-type]  # SAQ takes fractions too
        cancellation_hard_deadline_s=_CANCEL_WITHIN_S,
    )


class RedeliveringQueue(PrioritisedQueue):
    """Puts the jobs of dead workers back, each in one transaction that anybody who touches the job meanwhile stops.

    SAQ (0.26) takes a lost job out of all lists, waits for five seconds of silence, and then puts it back as it had
    read it. Is the worker that does this killed meanwhile, the job is in no list, its attempts are forgotten and its
    record stays for ever; does the worker that had the job end it meanwhile, that is undone.
    """

    def __init__(self, jobs: EncodeJobs) -> None:
        super().__init__(jobs)
        self._queues: tuple[RedisQueue, ...] = tuple(jobs.queues.values())
        self._being_taken: set[str] = set()

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        """Put lost jobs of both queues back, unless another worker looked in the last `lock` seconds; their ids."""
        queues = [it for it in self._queues if await it.redis.set(it.namespace("sweep"), "1", nx=True, ex=lock)]
        active: list[tuple[RedisQueue, Any]] = [(queue, job_id) for queue in queues for job_id in await _active(queue)]
        seen, self._being_taken = self._being_taken, set()
        return [job_id.decode() for queue, job_id in active if await self._put_back(queue, job_id.decode(), seen)]

    async def _put_back(self, queue: RedisQueue, job_id: str, being_taken: set[str]) -> bool:
        async with queue.redis.pipeline(transaction=True) as pipe:
            await pipe.watch(job_id)
            job = queue.deserialize(await pipe.get(job_id))
            if job is not None and job.status == Status.QUEUED and job_id not in being_taken:
                self._being_taken.add(
                    job_id
                )  # a worker has it and will say so in a moment, or is dead at the next look
                return False
            if job is not None and job.status != Status.QUEUED and not _is_silent(job):
                return False
            pipe.multi()  # type: ignore[no-untyped-call]
            pipe.lrem(queue.namespace("active"), 0, job_id)
            _say_what_becomes_of(pipe, queue, job_id, job)
            try:
                await pipe.execute()
            except WatchError:
                return False
        return True


async def _active(queue: RedisQueue) -> list[bytes]:
    found: Any = await queue.redis.lrange(queue.namespace("active"), 0, -1)
    return list(found)


def _is_silent(job: Job) -> bool:
    """Whether the job's worker has missed its heartbeats, or its time is up."""
    now_ms = time.time() * 1000
    return now_ms - job.touched > job.heartbeat * 1000 or now_ms - job.started > job.timeout * 1000


def _say_what_becomes_of(pipe: Pipeline, queue: RedisQueue, job_id: str, job: Job | None) -> None:
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
