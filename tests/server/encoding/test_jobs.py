"""Encode jobs on a real Redis: one a slide, urgent ones first, none lost with its worker, none for ever."""

import asyncio
from typing import Any

import pytest
from api_parts import lose_lease, make_due, running_worker, until
from redis.asyncio import Redis
from saq import Status
from taken_jobs import RecordOf, order, start

from server.encoding import encode_worker as encode_worker_module
from server.encoding.encode_worker import WorkerQueue
from server.encoding.jobs import EncodeJobs
from server.errors import Overloaded, QueueUnavailable
from server.settings import Settings
from server.slides.slide_record import SlideRecord
from server.storage.redis_client import connect_redis


async def test_a_slide_has_one_job_however_often_it_is_asked_for(jobs: EncodeJobs, record_of: RecordOf) -> None:
    record = record_of()

    outcomes = await asyncio.gather(*(jobs.enqueue(record) for _ in range(20)))

    assert outcomes.count(True) == 1
    assert (await jobs.depth("routine")).queued == 1


async def test_a_running_slide_is_not_queued_again(jobs: EncodeJobs, record_of: RecordOf) -> None:
    record = record_of()
    await jobs.enqueue(record)
    await start(WorkerQueue(jobs))

    assert await jobs.is_running(record)
    assert not await jobs.enqueue(record)
    assert not await jobs.enqueue(record.model_copy(update={"priority": "urgent"}))
    depth = await jobs.depth("routine")
    assert (depth.queued, depth.active) == (0, 1)


async def test_slides_tenants_and_encoders_have_jobs_of_their_own(jobs: EncodeJobs, record_of: RecordOf) -> None:
    records = [record_of("a"), record_of("b"), record_of("a", "other")]
    records.append(records[0].model_copy(update={"encoder_id": "f" * 16}))

    assert all([await jobs.enqueue(record) for record in records])


UNREADABLE = {
    "no JSON": b"\x00damaged",
    "no object": b"[]",
    "an object without anything": b"{}",
    "a job of another queue": b'{"queue": "other", "function": "f", "key": "k"}',
    "a job with what this release does not know": b'{"queue": "eyepiece-routine", "function": "f", "since_saq_9": 1}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=list(UNREADABLE))
async def test_a_job_that_cannot_be_read_stands_alone_and_is_made_again(
    jobs: EncodeJobs, record_of: RecordOf, redis: Redis, content: bytes
) -> None:
    record, other, deleted = record_of("a"), record_of("b"), record_of("c")
    for it in (record, deleted, other):
        await jobs.enqueue(it)
    for it in (record, deleted):
        job = await jobs.find(it)
        assert job is not None
        await redis.set(job.id, content)

    assert await jobs.find(record) is None
    assert not await jobs.is_running(record)
    assert (await jobs.depth("routine")).queued == 3
    await jobs.cancel(deleted)
    assert await jobs.enqueue(record)

    assert await order(jobs, 2) == ["default b", "default a"]
    assert len(await redis.keys("saq:job:*")) == 2


async def test_a_worker_that_takes_a_job_that_cannot_be_read_takes_the_next_one(
    jobs: EncodeJobs, record_of: RecordOf, redis: Redis
) -> None:
    damaged, good = record_of("a"), record_of("b")
    for it in (damaged, good):
        await jobs.enqueue(it)
    first = await jobs.find(damaged)
    assert first is not None
    await redis.set(first.id, b"damaged")
    queue = WorkerQueue(jobs)

    taken = [await queue.dequeue() for _ in range(2)]

    assert [job and job.kwargs and job.kwargs["slide_id"] for job in taken if job] == [good.id]


async def test_a_waiting_job_is_promoted_when_it_becomes_urgent(jobs: EncodeJobs, record_of: RecordOf) -> None:
    first, second = record_of("a"), record_of("b")
    await jobs.enqueue(first)
    await jobs.enqueue(second)

    assert await jobs.enqueue(second.model_copy(update={"priority": "urgent"}))
    assert not await jobs.enqueue(second.model_copy(update={"priority": "urgent"}))

    queue = WorkerQueue(jobs)
    order = [(await start(queue)).kwargs, (await start(queue)).kwargs]
    assert [kwargs and kwargs["slide_id"] for kwargs in order] == [second.id, first.id]
    assert await queue.dequeue() is None


async def test_an_urgent_job_is_not_put_back_by_a_routine_wish(jobs: EncodeJobs, record_of: RecordOf) -> None:
    record = record_of(priority="urgent")
    await jobs.enqueue(record)

    assert not await jobs.enqueue(record.model_copy(update={"priority": "routine"}))
    assert (await jobs.depth("urgent")).queued == 1


async def test_no_job_is_taken_twice_by_workers_that_ask_at_once(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(20):
        await jobs.enqueue(record_of(f"a{number}", f"t{number % 3}", "urgent" if number % 4 else "routine"))

    taken = await asyncio.gather(*(WorkerQueue(jobs).dequeue() for _ in range(25)))

    keys = [job.key for job in taken if job is not None]
    assert (len(keys), len(set(keys))) == (20, 20)
    depths = [await jobs.depth("urgent"), await jobs.depth("routine")]
    assert [(depth.queued, depth.active) for depth in depths] == [(0, 15), (0, 5)]


async def test_a_worker_that_waits_is_woken_by_a_job(
    jobs: EncodeJobs, record_of: RecordOf, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_worker_module, "_IDLE_WAIT_S", 0)  # for ever
    waiting = asyncio.create_task(WorkerQueue(jobs).dequeue())

    async def blocked() -> bool:
        return int((await redis.info("clients"))["blocked_clients"]) == 1

    await until(blocked)
    record = record_of()
    await jobs.enqueue(record)
    job = await waiting

    assert job is not None
    assert job.kwargs is not None
    assert job.kwargs["slide_id"] == record.id


async def test_a_cancelled_job_that_waits_is_gone(jobs: EncodeJobs, record_of: RecordOf, redis: Redis) -> None:
    record = record_of()
    await jobs.enqueue(record)

    await jobs.cancel(record)

    assert await jobs.find(record, finished=True) is None
    assert [key for key in await redis.keys("*") if record.id.encode() in key] == []
    assert await WorkerQueue(jobs).dequeue() is None


async def test_a_cancelled_slide_can_be_queued_again_at_once(jobs: EncodeJobs, record_of: RecordOf) -> None:
    record = record_of()
    await jobs.enqueue(record)
    await jobs.cancel(record)

    assert await jobs.enqueue(record)


async def test_cancelling_what_has_no_job_does_nothing(jobs: EncodeJobs, record_of: RecordOf) -> None:
    await jobs.cancel(record_of())


async def test_a_job_that_waits_for_its_retry_can_be_cancelled(
    jobs: EncodeJobs, record_of: RecordOf, redis: Redis
) -> None:
    record = record_of()
    await jobs.enqueue(record)
    queue = WorkerQueue(jobs)
    await (await start(queue)).retry("an error")

    await jobs.cancel(record)
    await make_due(queue, redis)

    assert await queue.dequeue() is None
    assert [key for key in await redis.keys("*") if record.id.encode() in key] == []


async def test_a_running_job_is_stopped_and_leaves_nothing(jobs: EncodeJobs, record_of: RecordOf, redis: Redis) -> None:
    record = record_of()
    started, stopped = asyncio.Event(), asyncio.Event()

    async def run(context: dict[str, Any], **_: str) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return "never"

    async with running_worker(jobs, run):
        await jobs.enqueue(record)
        await asyncio.wait_for(started.wait(), 30)
        await jobs.cancel(record)
        await asyncio.wait_for(stopped.wait(), 30)
        await until(lambda: nothing_left(redis, record))

    assert (await jobs.depth("routine")).active == 0


async def nothing_left(redis: Redis, record: SlideRecord) -> bool:
    return not [key for key in await redis.keys("*") if record.id.encode() in key]


async def test_the_job_of_a_dead_worker_is_delivered_again(jobs: EncodeJobs, record_of: RecordOf, redis: Redis) -> None:
    record = record_of()
    await jobs.enqueue(record)
    queue = WorkerQueue(jobs)
    lost = await start(queue)

    await lose_lease(queue, lost)
    await make_due(queue, redis)
    again = await start(queue)

    assert again.key == lost.key
    assert again.attempts == 2


async def test_a_job_that_kills_its_workers_is_not_delivered_for_ever(
    jobs: EncodeJobs, record_of: RecordOf, redis: Redis, settings: Settings
) -> None:
    record = record_of(priority="urgent")
    await jobs.enqueue(record)
    queue = WorkerQueue(jobs)

    for _ in range(settings.job_attempts):
        await lose_lease(queue, await start(queue))
        await make_due(queue, redis)

    assert await queue.dequeue() is None
    ended = await jobs.find(record, finished=True)
    assert ended is not None
    assert (ended.status, ended.retryable) == (Status.ABORTED, False)


async def test_a_full_queue_refuses_more(redis: Redis, settings: Settings, record_of: RecordOf) -> None:
    jobs = EncodeJobs(redis, settings.model_copy(update={"max_queued_jobs": 2}))
    await jobs.enqueue(record_of("a"))
    await jobs.enqueue(record_of("b", priority="urgent"))

    with pytest.raises(Overloaded) as caught:
        await jobs.enqueue(record_of("c", "other"))

    assert caught.value.retry_after_s
    assert not await jobs.enqueue(record_of("a").model_copy(update={"generation": await generation(jobs)}))


async def generation(jobs: EncodeJobs) -> str:
    """The generation of the first routine job: its slide is known, however full the queue is."""
    head = await WorkerQueue(jobs).redis.lindex("saq:eyepiece-routine:queued", 0)
    return str(head.decode().rsplit(":", 1)[-1])  # type: ignore[union-attr]


async def test_a_tenant_cannot_fill_the_queue_for_the_others(
    redis: Redis, settings: Settings, record_of: RecordOf
) -> None:
    jobs = EncodeJobs(redis, settings.model_copy(update={"max_queued_jobs_per_tenant": 2}))
    await jobs.enqueue(record_of("a", "greedy"))
    await jobs.enqueue(record_of("b", "greedy", priority="urgent"))

    with pytest.raises(Overloaded):
        await jobs.enqueue(record_of("c", "greedy"))
    assert await jobs.enqueue(record_of("c", "modest"))


async def test_a_promotion_is_not_refused_by_a_full_queue(
    redis: Redis, settings: Settings, record_of: RecordOf
) -> None:
    jobs = EncodeJobs(redis, settings.model_copy(update={"max_queued_jobs": 1}))
    record = record_of()
    await jobs.enqueue(record)

    assert await jobs.enqueue(record.model_copy(update={"priority": "urgent"}))


async def test_redis_away_is_told_in_our_words(settings_without_redis: Settings, record_of: RecordOf) -> None:
    redis = connect_redis(settings_without_redis)
    jobs = EncodeJobs(redis, settings_without_redis)

    with pytest.raises(QueueUnavailable):
        await jobs.enqueue(record_of())
    assert not await jobs.is_running(record_of())
    await redis.aclose()


async def test_a_worker_waits_while_redis_is_away(settings_without_redis: Settings) -> None:
    redis = connect_redis(settings_without_redis)

    assert await WorkerQueue(EncodeJobs(redis, settings_without_redis)).dequeue() is None
    await redis.aclose()


async def test_the_job_says_what_to_encode_and_no_more(jobs: EncodeJobs, record_of: RecordOf, redis: Redis) -> None:
    record = record_of()
    await jobs.enqueue(record)

    stored = b"".join([await redis.get(key) for key in await redis.keys("saq:job:*")])

    assert record.id.encode() in stored
    assert record.filename.encode() not in stored
