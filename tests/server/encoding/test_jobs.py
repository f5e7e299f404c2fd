"""Encode jobs on a real Redis: one a slide, urgent ones first, none lost with its worker, none for ever."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from api_parts import lose_lease, make_due, running_worker, until
from redis.asyncio import Redis
from saq import Job, Status

from server.encoding import encode_worker as encode_worker_module
from server.encoding.encode_worker import WorkerQueue
from server.encoding.jobs import TILES_OF_A_TURN, EncodeJobs
from server.encoding.queue_order import URGENT_IN_A_ROW
from server.errors import Overloaded, QueueUnavailable
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import Priority, SlideRecord
from server.storage.redis_client import connect_redis
from server.storage.slide_store import SlideStore


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> EncodeJobs:
    return EncodeJobs(redis, settings)


@pytest.fixture
def record_of(tmp_path: Path, redis: Redis) -> Callable[..., SlideRecord]:
    catalogue = SlideCatalogue(
        SlideStore(str(tmp_path / "store"), tmp_path), redis, lambda mpp, features: f"{mpp or 0:016.3f}"
    )

    def make(name: str = "a", tenant: str = "default", priority: Priority = "routine") -> SlideRecord:
        record = catalogue.new_record(tenant, name.encode().hex().ljust(64, "0"), "x.svs", 5)
        return record.model_copy(update={"priority": priority})

    return make


RecordOf = Callable[..., SlideRecord]


async def start(queue: WorkerQueue) -> Job:
    """Take the next job as a SAQ worker does."""
    job = await queue.dequeue()
    assert job is not None
    job.started = int(time.time() * 1000)
    job.attempts += 1
    await job.update(status=Status.ACTIVE)
    return job


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


async def order(jobs: EncodeJobs, count: int) -> list[str]:
    """The tenant and name of the slides that a worker takes next."""
    queue, taken = WorkerQueue(jobs), []
    for _ in range(count):
        kwargs = (await start(queue)).kwargs
        assert kwargs is not None
        taken.append(f"{kwargs['tenant']} {bytes.fromhex(kwargs['slide_id']).decode().rstrip(chr(0))}")
    return taken


@pytest.mark.parametrize("priority", ["routine", "urgent"])
async def test_tenants_take_turns_and_each_keeps_its_own_order(
    jobs: EncodeJobs, record_of: RecordOf, priority: Priority
) -> None:
    for name in ("a1", "a2", "a3", "a4"):
        await jobs.enqueue(record_of(name, "flood", priority))
    for name in ("b1", "b2"):
        await jobs.enqueue(record_of(name, "modest", priority))
    await jobs.enqueue(record_of("c1", "third", priority))

    assert await order(jobs, 5) == ["flood a1", "modest b1", "third c1", "flood a2", "modest b2"]
    await jobs.enqueue(record_of("c2", "third", priority))
    assert await order(jobs, 3) == ["third c2", "flood a3", "flood a4"]


async def test_a_tenant_that_comes_back_for_every_slide_does_not_starve_one_that_waits(
    jobs: EncodeJobs, record_of: RecordOf
) -> None:
    for name in ("a1", "a2", "a3"):
        await jobs.enqueue(record_of(name, "waits"))
    taken = []
    for name in ("b1", "b2", "b3"):
        await jobs.enqueue(record_of(name, "returns"))
        taken += await order(jobs, 1)

    assert taken == ["waits a1", "returns b1", "waits a2"]


async def test_urgent_jobs_go_first_but_leave_routine_ones_a_turn(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(2 * URGENT_IN_A_ROW):
        await jobs.enqueue(record_of(f"u{number}", "flood", "urgent"))
    for name in ("r1", "r2", "r3"):
        await jobs.enqueue(record_of(name, "flood"))

    taken = [name.split()[1][0] for name in await order(jobs, 2 * URGENT_IN_A_ROW + 3)]

    turn = ["u"] * URGENT_IN_A_ROW + ["r"]
    assert taken == [*turn, *turn, "r"]


async def test_one_tenants_urgent_jobs_take_turns_with_anothers_routine_ones(
    jobs: EncodeJobs, record_of: RecordOf
) -> None:
    for number in range(5):
        await jobs.enqueue(record_of(f"u{number}", "flood", "urgent"))
    for name, tenant in (("r1", "b"), ("r2", "b"), ("r3", "c")):
        await jobs.enqueue(record_of(name, tenant))

    assert await order(jobs, 7) == ["flood u0", "b r1", "flood u1", "c r3", "flood u2", "b r2", "flood u3"]


async def test_urgent_jobs_of_several_tenants_come_before_routine_ones(jobs: EncodeJobs, record_of: RecordOf) -> None:
    await jobs.enqueue(record_of("r", "c"))
    for tenant in ("a", "b"):
        await jobs.enqueue(record_of("u", tenant, "urgent"))

    assert await order(jobs, 3) == ["a u", "b u", "c r"]


async def test_a_routine_job_waits_for_the_slide_in_hand_and_for_no_second_one_of_the_same_tenant(
    jobs: EncodeJobs, record_of: RecordOf
) -> None:
    await jobs.enqueue(record_of("u0", "flood", "urgent"))
    assert await order(jobs, 1) == ["flood u0"]
    await jobs.enqueue(record_of("u1", "flood", "urgent"))
    await jobs.enqueue(record_of("r", "modest"))

    assert await order(jobs, 2) == ["modest r", "flood u1"]


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [
        (TILES_OF_A_TURN - 1, ["modest a", "flood b", "modest c", "flood d"]),
        (2 * TILES_OF_A_TURN, ["modest a", "modest c", "flood b", "flood d"]),
    ],
)
async def test_a_tenant_that_had_a_huge_slide_waits_for_more_than_one_of_the_others(
    jobs: EncodeJobs, record_of: RecordOf, tiles: int, expected: list[str]
) -> None:
    await jobs.enqueue(record_of("huge", "flood"))
    assert await order(jobs, 1) == ["flood huge"]
    for tenant, names in (("flood", "bd"), ("modest", "ac")):
        for name in names:
            await jobs.enqueue(record_of(name, tenant))
    await jobs.queues["routine"].charge("flood", tiles)

    assert await order(jobs, 4) == expected


async def test_urgent_jobs_of_an_idle_time_are_not_held_against_the_next(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(URGENT_IN_A_ROW + 1):
        await jobs.enqueue(record_of(f"u{number}", priority="urgent"))
    await order(jobs, URGENT_IN_A_ROW)
    await jobs.enqueue(record_of("r"))

    assert await order(jobs, 2) == [f"default u{URGENT_IN_A_ROW}", "default r"]


async def test_another_tenants_urgent_job_waits_for_one_turn_only(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(50):
        await jobs.enqueue(record_of(f"a{number}", "flood", "urgent"))
        await jobs.enqueue(record_of(f"r{number}", "flood"))
    await order(jobs, 3)

    await jobs.enqueue(record_of("u", "modest", "urgent"))

    assert await order(jobs, 1) == ["modest u"]


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_said_to_be_ahead_is_what_is_taken(jobs: EncodeJobs, record_of: RecordOf, seed: int) -> None:
    random, tenants = Random(seed), "abcd"
    for number in range(16):
        await jobs.enqueue(record_of(f"{number}", random.choice(tenants), random.choice(["urgent", "routine"])))
        if random.random() < 0.4:
            await order(jobs, 1)
    said = {tenant: (await jobs.standing(tenant)) for tenant in tenants}

    left = sum(it.waiting for it in said.values())
    taken = [name.split()[0] for name in await order(jobs, left)]

    assert {tenant: taken.index(tenant) for tenant in tenants if tenant in taken} == {
        tenant: it.ahead for tenant, it in said.items() if it.waiting
    }
    assert (await jobs.standing("e")).ahead == 0


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
