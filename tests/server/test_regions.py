"""Regions of a slide: drawn, made by a worker from stored features, kept within bounds, gone with the slide."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api_parts import client_of, encode_job, lose_lease, make_due, problem_of, running_worker, stored_slide, until
from drawn_regions import QUADRANTS, WHOLE, FakeMake, box, region_job, slide_with_tiles
from fakes import FakeEncode
from fastapi import FastAPI
from redis.asyncio import Redis
from saq import Status

from encoders.errors import EncoderOverflowed
from server.api.parts import Parts
from server.encoding.encode_job import EncodeInterrupted
from server.encoding.encode_worker import DerivedWork, WorkerQueue
from server.encoding.region_job import RegionJob
from server.identity.api_keys import create_key
from server.slides.region_record import SlideRegion
from server.slides.slide_record import SlideRecord

Shape = dict[str, Any]


@pytest.fixture
async def slide(parts: Parts) -> SlideRecord:
    return await slide_with_tiles(parts)


async def draw(client: httpx.AsyncClient, slide: SlideRecord, shape: Shape) -> httpx.Response:
    return await client.post(f"/v1/slides/{slide.id}/regions", json=shape)


async def status(client: httpx.AsyncClient, slide: SlideRecord, region_id: str) -> str:
    return str((await client.get(f"/v1/slides/{slide.id}/regions/{region_id}")).json()["status"])


@asynccontextmanager
async def worker(parts: Parts, make: FakeMake, encode: FakeEncode | None = None) -> AsyncIterator[RegionJob]:
    """A worker for one slide at once, and beside it for a region."""
    job = region_job(parts, make)
    encodes = encode_job(parts, encode or FakeEncode("unused"))
    async with running_worker(parts.jobs, encodes.run, ("",), DerivedWork(parts.region_jobs, job.run)):
        yield job


def outcome(job: RegionJob, word: str) -> float:
    labels = {"model": "demo", "outcome": word}
    return job.metrics.registry.get_sample_value("eyepiece_region_jobs_total", labels) or 0.0


async def test_a_region_is_made_by_a_worker_from_stored_features(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    drawn = await draw(client, slide, QUADRANTS[0])
    region = drawn.json()

    assert drawn.status_code == 202
    assert drawn.headers["Location"] == f"/v1/slides/{slide.id}/regions/{region['region_id']}"
    assert drawn.headers["Retry-After"] == "1"
    assert (region["tiles"], region["area_mm2"], region["status"]) == (25, 0.0625, "queued")
    assert region["polygon"] == [[0, 0], [500, 0], [500, 500], [0, 500]]
    async with worker(parts, FakeMake()) as job:
        await until(lambda: outcome(job, "ready") == 1)
    again = await draw(client, slide, QUADRANTS[0])

    assert (again.status_code, again.json()) == (200, {**region, "status": "ready"})
    # No slide was opened and no tile encoded.
    assert job.metrics.registry.get_sample_value("eyepiece_tiles_encoded_total") == 0


async def test_the_same_tiles_are_the_same_region_however_they_are_drawn(
    client: httpx.AsyncClient, slide: SlideRecord
) -> None:
    shapes = [
        QUADRANTS[0],
        box(-40, -40, 550, 560),
        {"polygon": [[0, 0], [0, 500], [500, 500], [500, 0]]},
        {"polygon": [[0, 0], [500, 0], [500, 500], [0, 500], [0, 0]]},
    ]
    ids = {(await draw(client, slide, shape)).json()["region_id"] for shape in shapes}
    others = {(await draw(client, slide, shape)).json()["region_id"] for shape in QUADRANTS}

    assert len(ids) == 1
    assert len(others) == 4
    assert ids < others


@pytest.mark.parametrize(
    ("shape", "status", "code", "said"),
    [
        (box(0, 0, 500, 100), 422, "region_too_small", "holds 5 of the 16 tiles"),
        (box(5000, 0, 500, 500), 422, "unusable_region", "outside the slide, which is 1000 × 1000"),
        ({"polygon": [[0, 0], [500, 500], [500, 0], [0, 500]]}, 422, "unusable_region", "crosses itself"),
        ({"polygon": [[0, 0], [500, 500]]}, 422, "invalid_request", "polygon"),
        ({"polygon": [[x, x % 7] for x in range(1001)]}, 422, "invalid_request", "polygon"),
        ({"polygon": [[0, 0], [500, 0], [500]]}, 422, "invalid_request", "polygon"),
        ({"polygon": [[0, 0], [500, 0], [1e300, 5]]}, 422, "invalid_request", "polygon"),
        (box(0, 0, -500, 500), 422, "invalid_request", "width"),
        ({}, 422, "invalid_request", "either a rectangle or a polygon"),
        ({**QUADRANTS[0], "polygon": [[0, 0], [500, 0], [500, 500]]}, 422, "invalid_request", "either"),
        ({**QUADRANTS[0], "model": "other"}, 422, "invalid_request", "does not serve that model"),
        ({**QUADRANTS[0], "colour": "red"}, 422, "invalid_request", "colour"),
    ],
)
async def test_what_cannot_be_asked_about_is_refused_in_words(
    client: httpx.AsyncClient, slide: SlideRecord, shape: Shape, status: int, code: str, said: str
) -> None:
    refused = await draw(client, slide, shape)

    assert problem_of(refused, status) == code
    assert said in refused.json()["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
async def test_numbers_that_are_none_are_refused(client: httpx.AsyncClient, slide: SlideRecord, number: str) -> None:
    content = f'{{"polygon": [[0, 0], [500, 0], [500, {number}]]}}'
    headers = {"Content-Type": "application/json"}
    refused = await client.post(f"/v1/slides/{slide.id}/regions", content=content, headers=headers)

    assert problem_of(refused, 422) == "invalid_request"


async def test_a_slide_without_places_has_no_regions(client: httpx.AsyncClient, parts: Parts) -> None:
    rows = await stored_slide(parts, "rows", ready=True)
    await parts.store.delete(rows.paths.features(rows.encoder_id))
    sizeless = await slide_with_tiles(parts, "sizeless", said={"width": 1000})
    damaged = await stored_slide(parts, "damaged", ready=True)

    found = [await draw(client, slide, QUADRANTS[0]) for slide in (rows, sizeless, damaged)]

    assert [problem_of(it, 409) for it in found] == ["regions_unavailable"] * 3
    words = ("given as slide features", "patch_size_level0", "delete the slide and upload it again")
    assert [word in it.json()["detail"] for it, word in zip(found, words, strict=True)] == [True] * 3


async def test_a_slide_that_is_not_encoded_has_no_regions_yet(client: httpx.AsyncClient, parts: Parts) -> None:
    waiting = await stored_slide(parts, "waiting")

    refused = await draw(client, waiting, QUADRANTS[0])

    assert problem_of(refused, 409) == "slide_not_ready"
    assert refused.headers["Retry-After"] == "5"
    assert await parts.jobs.find(waiting) is not None


async def test_where_nobody_knows_the_resolution_the_area_is_not_known(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await slide_with_tiles(parts, said={name: it for name, it in WHOLE.items() if name != "mpp"})
    told = await slide_with_tiles(parts, "told", said={"tile_px_level0": 100.0}, mpp=1.0)

    assert (await draw(client, slide, QUADRANTS[0])).json()["area_mm2"] is None
    assert (await draw(client, told, QUADRANTS[0])).json()["area_mm2"] == 0.25


async def test_a_region_of_another_tenant_does_not_exist(app: FastAPI, parts: Parts) -> None:
    ours, theirs = [await create_key(parts.store, tenant) for tenant in ("ours", "theirs")]
    slide = await slide_with_tiles(parts, tenant="ours")
    async with client_of(app, ours) as we, client_of(app, theirs) as they:
        region_id = (await draw(we, slide, QUADRANTS[0])).json()["region_id"]

        assert problem_of(await draw(they, slide, QUADRANTS[0]), 404) == "not_found"
        assert problem_of(await they.get(f"/v1/slides/{slide.id}/regions/{region_id}"), 404) == "not_found"
        # Whoever has the slide too has the same names, and nothing else.
        own = await slide_with_tiles(parts, tenant="theirs")
        assert problem_of(await they.get(f"/v1/slides/{own.id}/regions/{region_id}"), 404) == "not_found"
        assert (await draw(they, own, QUADRANTS[0])).json()["region_id"] == region_id
    async with worker(parts, FakeMake()):
        for record in (slide, own):
            await until(lambda record=record: parts.embeddings.exists(SlideRegion(record, region_id)))
    keys = [key.decode() async for key in parts.redis.scan_iter("eyepiece:*embedding*")]
    assert {key.split("}")[0] for key in keys} == {"eyepiece:{ours", "eyepiece:{theirs"}


async def test_a_killed_worker_loses_nothing(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, redis: Redis
) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    queue = WorkerQueue(parts.jobs, derived=[parts.region_jobs])
    job = await queue.dequeue()
    assert job is not None
    job.started, job.attempts = 1, 1
    await job.update(status=Status.ACTIVE)
    assert await status(client, slide, region_id) == "encoding"

    await lose_lease(queue, job)  # its worker was killed in the middle of it
    await make_due(queue, redis)

    assert await status(client, slide, region_id) == "queued"
    async with worker(parts, FakeMake()):
        await until(lambda: parts.embeddings.exists(SlideRegion(slide, region_id)))
    assert await status(client, slide, region_id) == "ready"


async def test_a_region_whose_job_was_lost_with_redis_is_queued_when_it_is_looked_at(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, redis: Redis
) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    await redis.flushall()

    assert await status(client, slide, region_id) == "queued"
    assert await parts.region_jobs.find(SlideRegion(slide, region_id)) is not None


async def test_a_region_that_kills_its_workers_is_given_up(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, redis: Redis
) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    for attempt in range(1, parts.settings.job_attempts + 1):
        queue = WorkerQueue(parts.jobs, derived=[parts.region_jobs])
        job = await queue.dequeue()
        assert job is not None
        job.started, job.attempts = 1, attempt
        await job.update(status=Status.ACTIVE)
        await lose_lease(queue, job)
        await make_due(queue, redis)

    found = (await client.get(f"/v1/slides/{slide.id}/regions/{region_id}")).json()
    assert (found["status"], found["error"]["code"]) == ("failed", "region_failed")
    assert (await draw(client, slide, QUADRANTS[0])).json()["status"] == "queued"  # who draws it again tries it again


async def test_a_region_does_not_wait_for_a_slide(client: httpx.AsyncClient, parts: Parts, slide: SlideRecord) -> None:
    other = await stored_slide(parts, "other", whole=True)
    encode = FakeEncode(other.encoder_id, hold=True)
    await parts.jobs.enqueue(other)
    async with worker(parts, FakeMake(), encode):
        await asyncio.to_thread(encode.started.wait, 60)
        region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
        await until(lambda: parts.embeddings.exists(SlideRegion(slide, region_id)))
        assert not await parts.embeddings.exists(other)
        encode.release.set()
        await until(lambda: parts.embeddings.exists(other))


async def test_waiting_regions_are_jobs_that_workers_are_scaled_by(
    client: httpx.AsyncClient, app: FastAPI, parts: Parts, slide: SlideRecord
) -> None:
    for shape in QUADRANTS:
        await draw(client, slide, shape)
    await app.state.readiness.look()

    labels = {"model": "demo", "priority": "region"}
    assert parts.metrics.registry.get_sample_value("eyepiece_jobs_queued", labels) == 4
    assert parts.metrics.registry.get_sample_value("eyepiece_jobs_active", labels) == 0


async def test_a_flood_of_regions_stops_no_slide(client: httpx.AsyncClient, parts: Parts, slide: SlideRecord) -> None:
    other = await stored_slide(parts, "other", whole=True)
    make = FakeMake(hold=True)
    for shape in QUADRANTS:
        await draw(client, slide, shape)
    async with worker(parts, make, FakeEncode(other.encoder_id)):
        await asyncio.to_thread(make.started.wait, 60)
        await parts.jobs.enqueue(other)
        await until(lambda: parts.embeddings.exists(other))
        assert make.calls == 1
        make.release.set()


async def test_what_fails_is_said(client: httpx.AsyncClient, parts: Parts, slide: SlideRecord) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    async with worker(parts, FakeMake(error=EncoderOverflowed("The slide's rows are beyond the range."))) as job:
        await until(lambda: outcome(job, "failed") == 1)
    found = (await client.get(f"/v1/slides/{slide.id}/regions/{region_id}")).json()

    assert (found["status"], found["error"]["detail"]) == ("failed", "The slide's rows are beyond the range.")


async def test_what_is_known_of_a_region_is_written_under_its_slides_lock_and_only_where_it_is(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, locked = parts.store.put, list[int]()

    async def noted(key: str, content: bytes) -> None:
        if key.startswith(slide.paths.regions):
            locked.append(await redis.exists(f"eyepiece:{{{slide.tenant}}}:record:{slide.id}"))
        await put(key, content)

    monkeypatch.setattr(parts.store, "put", noted)
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    async with worker(parts, FakeMake(error=EncoderOverflowed("Beyond the range."))) as job:
        await until(lambda: outcome(job, "failed") == 1)
    await draw(client, slide, QUADRANTS[0])  # tries it again
    record = await parts.regions.find(slide.paths, region_id)
    assert record is not None
    assert record.error is None
    long_ago = record.model_copy(update={"used_at": record.used_at - timedelta(days=1)})
    await put(slide.paths.region(region_id), long_ago.model_dump_json().encode())
    async with worker(parts, FakeMake()):
        question = {"question": "Why?", "stream": False, "region": region_id}
        assert (await client.post(f"/v1/slides/{slide.id}/questions", json=question)).is_success

    assert locked == [1, 1, 1, 1]
    used = await parts.regions.find(slide.paths, region_id)
    assert used is not None
    assert used.used_at >= record.used_at
    await parts.store.delete(slide.paths.region(region_id))
    assert not await parts.regions.change(slide.paths, region_id, error=None)
    assert not await parts.store.exists(slide.paths.region(region_id))


async def test_what_may_pass_is_tried_again(client: httpx.AsyncClient, parts: Parts, slide: SlideRecord) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    message = await WorkerQueue(parts.jobs, derived=[parts.region_jobs]).dequeue()
    assert message is not None
    make = FakeMake(error=RuntimeError("/a/path"))
    job = region_job(parts, make)
    for _ in range(parts.settings.job_error_attempts - 1):
        with pytest.raises(EncodeInterrupted, match=r"^Making a region was interrupted by RuntimeError\.$"):
            await job.run({"job": message}, **(message.kwargs or {}))
    assert await status(client, slide, region_id) == "queued"

    assert await job.run({"job": message}, **(message.kwargs or {})) == "gave_up"

    found = (await client.get(f"/v1/slides/{slide.id}/regions/{region_id}")).json()
    assert (found["status"], found["error"]["code"]) == ("failed", "internal_error")
    assert "path" not in found["error"]["detail"]


async def test_a_slide_that_is_deleted_takes_its_regions_with_it(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    waiting = [(await draw(client, slide, shape)).json()["region_id"] for shape in QUADRANTS]
    make = FakeMake()
    async with worker(parts, make):
        await until(lambda: parts.embeddings.exists(SlideRegion(slide, waiting[-1])))
        make.hold = True
        make.started.clear()
        held = (await draw(client, slide, box(0, 0, 1000, 500))).json()["region_id"]
        await asyncio.to_thread(make.started.wait, 60)

        assert (await client.delete(f"/v1/slides/{slide.id}")).status_code == 204
        make.release.set()
        await until(lambda: gone_from_the_queue(parts))
    assert await parts.store.keys_after(f"tenants/{slide.tenant}/slides", "", 10) == []
    assert [key async for key in parts.redis.scan_iter(f"*embedding:{slide.id}*")] == []
    assert problem_of(await client.get(f"/v1/slides/{slide.id}/regions/{held}"), 404) == "not_found"


async def gone_from_the_queue(parts: Parts) -> bool:
    queue = parts.region_jobs.queue_of("")
    return not await queue.unfinished_keys() and not await queue.count("active")


async def test_what_was_published_after_the_slide_was_deleted_is_removed(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    queue = WorkerQueue(parts.jobs, derived=[parts.region_jobs])
    message = await queue.dequeue()
    assert message is not None
    make = FakeMake(hold=True)
    job = region_job(parts, make)
    running = asyncio.create_task(job.run({"job": message}, **(message.kwargs or {})))
    await asyncio.to_thread(make.started.wait, 60)
    await client.delete(f"/v1/slides/{slide.id}")
    make.release.set()

    assert await running == "deleted"
    assert await parts.store.stored_bytes(slide.paths.folder) == 0
    assert not await parts.embeddings.exists(SlideRegion(slide, region_id))


async def test_a_hundred_regions_leave_bounded_storage(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(max_regions_per_slide=4)
    parts: Parts = app.state.parts
    slide = await slide_with_tiles(parts)
    async with client_of(app) as client, worker(parts, FakeMake()):
        first = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
        await until(lambda: parts.embeddings.exists(SlideRegion(slide, first)))
        before = (await client.get("/v1/usage")).json()["stored_bytes"]
        for number in range(100):
            shape = box(0, 0, 1000, 500) if number == 50 else outline_of(number)
            assert (await draw(client, slide, shape)).is_success
        await until(lambda: gone_from_the_queue(parts))
        names = await parts.store.objects(slide.paths.regions)

        assert len({name.partition(".")[0] for name in names}) == 4
        assert len(names) == 8
        assert problem_of(await client.get(f"/v1/slides/{slide.id}/regions/{first}"), 404) == "not_found"
        stored = await parts.store.stored_bytes(f"tenants/{slide.tenant}/slides")
        assert (await client.get("/v1/usage")).json()["stored_bytes"] == stored
        assert stored < before + 4 * 12_000
        # Drawn again, it is what it was.
        assert (await draw(client, slide, QUADRANTS[0])).json()["region_id"] == first


def outline_of(number: int) -> Shape:
    """One of a hundred regions that all have other tiles."""
    row, column = divmod(number, 10)
    right, bottom = column * 100 + 60, 300 + row * 70
    return {"polygon": [[0, 0], [right, 0], [right, 100], [1000, 100], [1000, bottom], [0, bottom]]}


async def test_a_damaged_record_is_no_region(client: httpx.AsyncClient, parts: Parts, slide: SlideRecord) -> None:
    region_id = (await draw(client, slide, QUADRANTS[0])).json()["region_id"]
    await parts.store.put(slide.paths.region(region_id), b"{")

    assert problem_of(await client.get(f"/v1/slides/{slide.id}/regions/{region_id}"), 404) == "not_found"
    assert (await draw(client, slide, QUADRANTS[0])).json()["region_id"] == region_id
