"""Encode jobs that are cancelled, taken over, or whose slide is deleted or changed meanwhile."""

import asyncio
import dataclasses
from typing import Any

import pytest
from api_parts import running_worker, until
from encode_jobs import (
    SLIDE,
    TENANT,
    deliver,
    held,
    names,
    outcome,
    run,
    staged_files,
    taken,
    uploaded,
)
from fakes import FakeEncode
from redis.asyncio import Redis
from saq import Status

from encoders.errors import NoTissue
from server.encoding.encode_job import EncodeJob, heartbeat
from server.encoding.jobs import EncodeJobs
from server.storage.slide_store import slides_folder


async def test_cancelling_stops_the_encode_and_waits_for_it(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    encode.hold = True
    record = await uploaded(job)
    await jobs.enqueue(record)
    running = asyncio.create_task(run(job, await taken(jobs)))
    await asyncio.to_thread(encode.started.wait, 30)

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert running.cancelled()
    assert encode.saw_cancel.is_set()
    assert staged_files(job) == []
    assert not await job.embeddings.exists(record)
    del running
    assert unhandled == []


async def test_a_worker_whose_job_was_given_to_another_one_falls_silent(
    job: EncodeJob, jobs: EncodeJobs, redis: Redis
) -> None:
    await jobs.enqueue(await uploaded(job))
    mine = await taken(jobs)
    await mine.update(status=Status.ACTIVE, attempts=1)
    theirs = dataclasses.replace(mine, attempts=2, touched=1)
    await redis.set(mine.id, mine.get_queue().serialize(theirs))

    await asyncio.wait_for(heartbeat(mine, every_s=0.0), 30)

    stored = await mine.get_queue().job(mine.key)
    assert stored is not None
    assert stored.to_dict() == theirs.to_dict()


async def test_a_slide_deleted_before_its_turn_is_not_encoded(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, redis: Redis
) -> None:
    record = await uploaded(job)
    await job.store.delete(record.paths.record)

    assert await deliver(job, jobs, record) == "deleted"
    assert encode.calls == 0


async def test_a_worker_keeps_nothing_of_the_job_of_a_deleted_slide(
    job: EncodeJob, jobs: EncodeJobs, redis: Redis
) -> None:
    record = await uploaded(job)
    await job.store.delete(record.paths.record)

    async with running_worker(jobs, job.run):
        await jobs.enqueue(record)
        await until(lambda: outcome(job, "deleted") == 1)
        await until(lambda: nothing_left(redis))

    assert await nothing_left(redis)


async def nothing_left(redis: Redis) -> bool:
    return not [key for key in await redis.keys("*") if SLIDE.encode() in key]


async def test_a_slide_deleted_meanwhile_publishes_nothing(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, redis: Redis
) -> None:
    record = await uploaded(job)
    running = await held(job, jobs, encode, record)
    await job.store.delete_folder(record.paths.folder)

    encode.release.set()
    await running

    assert await job.store.folders(slides_folder(TENANT)) == []
    assert await redis.keys("*embedding*") == []
    assert "ready" not in await names(job)


async def test_a_slide_uploaded_again_meanwhile_is_not_touched_by_the_old_job(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    old = await uploaded(job)
    running = await held(job, jobs, encode, old)
    await job.store.delete_folder(old.paths.folder)
    new = await uploaded(job)

    encode.release.set()
    await running

    assert await job.slides.require(TENANT, SLIDE) == new
    assert await job.store.get(new.paths.source) == b"bytes"


@pytest.mark.parametrize("error", [None, NoTissue("Nothing to encode.")])
async def test_a_run_that_nobody_waits_for_any_more_says_nothing(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, error: NoTissue | None
) -> None:
    record = await uploaded(job)
    running = await held(job, jobs, encode, record)
    wished = await job.slides.update(record, lambda stored: job.slides.with_override(stored, 0.25))

    encode.error = error
    encode.release.set()
    await running

    assert await job.slides.require(TENANT, SLIDE) == wished
    assert {"ready", "failed"}.isdisjoint(await names(job))
