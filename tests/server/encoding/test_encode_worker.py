"""A worker with several slides in hand: whose turn it is, and what becomes of them when it stops."""

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from api_parts import make_due, until
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from saq import Job, Status

from server.encoding import encode_worker as encode_worker_module
from server.encoding.encode_worker import WorkerQueue, encode_worker
from server.encoding.jobs import EncodeJobs
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import Priority, SlideRecord
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import TileEncoderMetrics
from server.worker import slides_at_once

LONG_AGO_MS = 1


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> EncodeJobs:
    # Long heartbeats: nobody sweeps a slide that is merely held here.
    return EncodeJobs(redis, settings.model_copy(update={"job_heartbeat_s": 600}))


@pytest.fixture
def catalogue(tmp_path: Path, redis: Redis) -> SlideCatalogue:
    return SlideCatalogue(SlideStore(str(tmp_path / "store"), tmp_path), redis, lambda mpp, features, budget: "e" * 16)


class HeldEncodes:
    """Every slide stays in hand until it is released, or its worker stops."""

    def __init__(self) -> None:
        self.in_hand: list[str] = []
        self.taken: list[str] = []
        self.cancelled: list[str] = []
        self.release = asyncio.Event()

    async def run(self, context: dict[str, Any], *, slide_id: str, **_: str) -> str:
        self.taken.append(slide_id)
        self.in_hand.append(slide_id)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(slide_id)
            raise
        finally:
            self.in_hand.remove(slide_id)
        return "ready"


async def queued(jobs: EncodeJobs, catalogue: SlideCatalogue, name: str, priority: Priority = "routine") -> SlideRecord:
    record = catalogue.new_record("default", name * 64, "x.svs", 5).model_copy(update={"priority": priority})
    await jobs.enqueue(record)
    return record


async def test_several_slides_are_in_hand_urgent_ones_first(jobs: EncodeJobs, catalogue: SlideCatalogue) -> None:
    for name in "abc":
        await queued(jobs, catalogue, name)
    for name in "de":
        await queued(jobs, catalogue, name, "urgent")
    held = HeldEncodes()
    worker = encode_worker(jobs, held.run, sweep_every_s=1, slides_at_once=2)
    working = asyncio.create_task(worker.start())

    await until(lambda: len(held.in_hand) == 2)
    assert sorted(held.in_hand) == ["d" * 64, "e" * 64]
    assert (await jobs.depth("routine")).queued == 3

    held.release.set()
    await until(lambda: len(held.taken) == 5)
    assert sorted(held.taken[2:]) == [name * 64 for name in "abc"]
    worker.event.set()
    await working


async def test_a_worker_that_stops_hands_all_its_slides_back(jobs: EncodeJobs, catalogue: SlideCatalogue) -> None:
    records = [await queued(jobs, catalogue, "a"), await queued(jobs, catalogue, "b", "urgent")]
    held = HeldEncodes()
    worker = encode_worker(jobs, held.run, sweep_every_s=1, slides_at_once=2)
    working = asyncio.create_task(worker.start())
    await until(lambda: len(held.in_hand) == 2)

    worker.event.set()  # what SIGTERM does
    await working

    assert sorted(held.cancelled) == [record.id for record in records]
    found = [await jobs.find(record) for record in records]
    assert [job and job.status for job in found] == [Status.QUEUED, Status.QUEUED]


async def test_one_of_two_slides_is_cancelled_and_the_other_goes_on(
    jobs: EncodeJobs, catalogue: SlideCatalogue
) -> None:
    gone, stays = await queued(jobs, catalogue, "a"), await queued(jobs, catalogue, "b")
    held = HeldEncodes()
    worker = encode_worker(jobs, held.run, sweep_every_s=1, slides_at_once=2, abort_every_s=0.05)
    working = asyncio.create_task(worker.start())
    await until(lambda: len(held.in_hand) == 2)

    await jobs.cancel(gone)
    await until(lambda: held.cancelled == [gone.id])

    assert held.in_hand == [stays.id]
    assert await jobs.is_running(stays)
    worker.event.set()
    await working


async def taken(jobs: EncodeJobs, catalogue: SlideCatalogue, **facts: Any) -> Job:
    """A job that a worker has, as these `facts` say."""
    await queued(jobs, catalogue, "a")
    job = await WorkerQueue(jobs).dequeue()
    assert job is not None
    for name, value in {"attempts": 1, "touched": LONG_AGO_MS, "status": Status.ACTIVE, **facts}.items():
        setattr(job, name, value)
    await jobs.queues["routine"].redis.set(job.id, job.get_queue().serialize(job))
    return job


async def looked(jobs: EncodeJobs, redis: Redis, queue: WorkerQueue | None = None) -> tuple[list[str], Job | None]:
    """Which jobs a look for lost ones puts back, and the one job afterwards."""
    await redis.delete("saq:eyepiece-routine:sweep", "saq:eyepiece-urgent:sweep")
    swept = await (queue or WorkerQueue(jobs)).sweep()
    (key,) = [name.decode().removeprefix("saq:job:eyepiece-routine:") for name in await redis.keys("saq:job:*")]
    return swept, await jobs.queues["routine"].job(key)


async def lists_of(redis: Redis) -> tuple[int, int, int]:
    """How many jobs are queued, active and unfinished."""
    keys = [f"saq:eyepiece-routine:{name}" for name in ("queued", "active", "incomplete")]
    return await redis.llen(keys[0]), await redis.llen(keys[1]), await redis.zcard(keys[2])


async def test_a_lost_job_is_queued_again_with_what_it_has_spent(
    jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis
) -> None:
    lost = await taken(jobs, catalogue, attempts=3, meta={"errors": 2})

    swept, job = await looked(jobs, redis)

    assert swept == [lost.id]
    assert job is not None
    assert (job.status, job.attempts, job.meta) == (Status.QUEUED, 3, {"errors": 2})
    assert await lists_of(redis) == (0, 0, 1)
    await make_due(WorkerQueue(jobs), redis)
    assert await lists_of(redis) == (1, 0, 1)


async def test_a_job_that_was_lost_too_often_is_aborted_and_forgotten_in_time(
    jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis
) -> None:
    lost = await taken(jobs, catalogue, attempts=5)

    _, job = await looked(jobs, redis)

    assert job is not None
    assert (job.status, job.retryable) == (Status.ABORTED, False)
    assert await lists_of(redis) == (0, 0, 0)
    assert await redis.ttl(lost.id) > 0


async def test_what_a_worker_says_while_its_job_is_put_back_counts(
    jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await taken(jobs, catalogue)
    requeue_or_abort = encode_worker_module._requeue_or_abort

    def just_then(*arguments: Any) -> None:
        with SyncRedis.from_url(settings.redis_url.get_secret_value()) as worker:
            job = dataclasses.replace(lost, status=Status.COMPLETE)
            worker.set(lost.id, str(lost.get_queue().serialize(job)), ex=60)
        requeue_or_abort(*arguments)

    monkeypatch.setattr(encode_worker_module, "_requeue_or_abort", just_then)
    swept, job = await looked(jobs, redis)

    assert swept == []
    assert job is not None
    assert job.status == Status.COMPLETE
    assert await redis.ttl(lost.id) > 0


@pytest.mark.parametrize("facts", [{"touched": None}, {"status": Status.QUEUED}])
async def test_a_job_whose_worker_lives_is_left_alone(
    jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis, facts: dict[str, Any]
) -> None:
    now_ms = int(time.time() * 1000)
    job = await taken(jobs, catalogue, started=now_ms, **{name: value or now_ms for name, value in facts.items()})

    swept, after = await looked(jobs, redis)

    assert swept == []
    assert after is not None
    assert after.to_dict() == job.to_dict()
    assert await lists_of(redis) == (0, 1, 1)


async def test_a_job_whose_worker_died_before_it_said_a_word_is_put_back_at_the_second_look(
    jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis
) -> None:
    lost, queue = await taken(jobs, catalogue, status=Status.QUEUED), WorkerQueue(jobs)

    assert [(await looked(jobs, redis, queue))[0] for _ in range(3)] == [[], [lost.id], []]

    assert await lists_of(redis) == (0, 0, 1)


async def test_a_job_that_is_over_is_no_lost_one(jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis) -> None:
    """Two workers had it; one ended it, the other was heard of once more and died."""
    over = await taken(jobs, catalogue, status=Status.COMPLETE)

    _, job = await looked(jobs, redis)

    assert job is not None
    assert job.status == Status.COMPLETE
    assert (await lists_of(redis))[:2] == (0, 0)
    assert await redis.ttl(over.id) > 0


async def test_a_job_that_is_gone_is_taken_out_of_the_lists(
    jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis
) -> None:
    gone = await taken(jobs, catalogue)
    await redis.delete(gone.id)

    assert await WorkerQueue(jobs).sweep() == [gone.id]

    assert await lists_of(redis) == (0, 0, 0)


async def test_one_worker_at_a_time_looks(jobs: EncodeJobs, catalogue: SlideCatalogue, redis: Redis) -> None:
    await redis.set("saq:eyepiece-routine:sweep", "1")
    await taken(jobs, catalogue)

    assert await WorkerQueue(jobs).sweep() == []


@pytest.mark.parametrize(
    ("device", "options", "slides"), [("cpu", 0, 1), ("cuda", 0, 2), ("cuda:1", 0, 2), ("cpu", 3, 3)]
)
def test_a_gpu_has_two_slides_at_once_unless_told_otherwise(
    settings: Settings, device: str, options: int, slides: int
) -> None:
    assert slides_at_once(settings.model_copy(update={"slides_at_once": options}), device) == slides


class Counted:
    """A tile encoder's counters."""

    busy_s, idle_s, padded_tiles, pass_tiles, refused_passes = 12.5, 0.25, 3, 32, 2


def test_the_tile_encoders_counters_are_read_when_they_are_asked_for() -> None:
    registry, counted = CollectorRegistry(), Counted()
    registry.register(TileEncoderMetrics([counted]))
    assert registry.get_sample_value("eyepiece_tile_encoder_busy_seconds_total") == 12.5

    counted.busy_s = 13.0

    shown = generate_latest(registry).decode()
    assert "eyepiece_tile_encoder_busy_seconds_total 13.0" in shown
    assert "eyepiece_tile_encoder_idle_seconds_total 0.25" in shown
    assert "eyepiece_tile_encoder_padded_tiles_total 3.0" in shown
    assert "eyepiece_tile_encoder_out_of_memory_total 2.0" in shown
    assert "eyepiece_tile_encoder_pass_tiles 32.0" in shown
