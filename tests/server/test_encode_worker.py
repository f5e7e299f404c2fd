"""A worker with several slides in hand: whose turn it is, and what becomes of them when it stops."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api_parts import until
from prometheus_client import CollectorRegistry, generate_latest
from redis.asyncio import Redis
from saq import Status

from server.encode_worker import encode_worker
from server.jobs import EncodeJobs
from server.metrics import TileEncoderMetrics
from server.settings import Settings
from server.slide_store import SlideStore
from server.slides import Priority, SlideCatalogue, SlideRecord
from server.worker import slides_at_once


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> EncodeJobs:
    # Long heartbeats: nobody sweeps a slide that is merely held here.
    return EncodeJobs(redis, settings.model_copy(update={"job_heartbeat_s": 600}))


@pytest.fixture
def catalogue(tmp_path: Path, redis: Redis) -> SlideCatalogue:
    return SlideCatalogue(SlideStore(str(tmp_path / "store"), tmp_path), redis, lambda mpp, features: "e" * 16)


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


@pytest.mark.parametrize(("device", "wish", "slides"), [("cpu", 0, 1), ("cuda", 0, 2), ("cuda:1", 0, 2), ("cpu", 3, 3)])
def test_a_gpu_has_two_slides_at_once_unless_told_otherwise(
    settings: Settings, device: str, wish: int, slides: int
) -> None:
    assert slides_at_once(settings.model_copy(update={"slides_at_once": wish}), device) == slides


class Counted:
    """A tile encoder's counters."""

    busy_s, idle_s, padded_tiles = 12.5, 0.25, 3


def test_the_tile_encoders_counters_are_read_when_they_are_asked_for() -> None:
    registry, counted = CollectorRegistry(), Counted()
    registry.register(TileEncoderMetrics(counted))
    assert registry.get_sample_value("eyepiece_tile_encoder_busy_seconds_total") == 12.5

    counted.busy_s = 13.0

    shown = generate_latest(registry).decode()
    assert "eyepiece_tile_encoder_busy_seconds_total 13.0" in shown
    assert "eyepiece_tile_encoder_idle_seconds_total 0.25" in shown
    assert "eyepiece_tile_encoder_padded_tiles_total 3.0" in shown
