"""What each way to fail leaves behind: at once, tried again, or no fault of the slide."""

import dataclasses
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from encode_jobs import (
    ENCODER,
    SLIDE,
    TENANT,
    JournalStore,
    arguments,
    deliver,
    encoders_with_parts,
    leave_a_part,
    names,
    outcome,
    run,
    staged_files,
    taken,
    uploaded,
)
from fakes import FakeEncode
from saq import Job

from encoders.errors import DeviceFull, DeviceLost, DeviceOutOfMemory, NoTissue, ReaderDied
from server.encoding import encode_job
from server.encoding.encode_job import EncodeInterrupted, EncodeJob
from server.encoding.jobs import EncodeJobs
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import ProgressLog
from server.storage.redis_client import connect_redis

MakeJob = Callable[..., EncodeJob]


async def test_a_fault_of_the_slide_fails_it_at_once(job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode) -> None:
    encode.error = NoTissue("There is no tissue on this slide.")
    record = await uploaded(job)
    await leave_a_part(job, record)

    assert await deliver(job, jobs, record) == "no_tissue"

    failed = await job.slides.require(TENANT, SLIDE)
    assert failed.error is not None
    assert failed.error.model_dump() == {"code": "no_tissue", "detail": "There is no tissue on this slide."}
    assert await encoders_with_parts(job, record) == []
    assert (await names(job))[-1] == "failed"
    assert staged_files(job) == []


@pytest.mark.parametrize("error", [None, NoTissue("There is no tissue on this slide.")])
async def test_a_source_that_is_not_what_was_uploaded_is_no_slides(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, store: JournalStore, error: Exception | None
) -> None:
    """Neither what was computed of it nor what is wrong with it is said of the slide."""
    encode.error = error
    record = await uploaded(job)
    await leave_a_part(job, record)
    await job.store.put(record.paths.source, b"bytez")
    store.published.clear()

    assert await deliver(job, jobs, record) == "unreadable_slide"

    failed = (await job.slides.require(TENANT, SLIDE)).error
    assert failed is not None
    assert failed.detail.endswith("no longer matches the upload; upload the slide again.")
    assert store.published == staged_files(job) == await encoders_with_parts(job, record) == []


async def test_a_slide_whose_source_is_gone_says_so(job: EncodeJob, jobs: EncodeJobs) -> None:
    record = await uploaded(job)
    await job.store.delete(record.paths.source)

    assert await deliver(job, jobs, record) == "unreadable_slide"

    failed = (await job.slides.require(TENANT, SLIDE)).error
    assert failed is not None
    assert failed.detail == "The stored file of this slide is missing; upload the slide again."


@pytest.mark.parametrize(
    ("error", "code", "advice"),
    [
        (ValueError("Doe^Jane"), "internal_error", "the operator finds why"),
        (ReaderDied("It died; try again."), "unreadable_slide", "Upload an intact copy"),
    ],
)
async def test_another_error_is_tried_again_before_it_is_believed(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, settings: Settings, error: Exception, code: str, advice: str
) -> None:
    encode.error = error
    record = await uploaded(job)
    await jobs.enqueue(record)
    message = await taken(jobs)

    for _ in range(settings.job_error_attempts - 1):
        with pytest.raises(EncodeInterrupted, match=type(error).__name__) as caught:
            await run(job, message)
        shown = "".join(traceback.format_exception(caught.value))
        assert str(error) not in shown, "SAQ keeps the traceback in Redis"
        assert (await job.slides.require(TENANT, SLIDE)).error is None
    assert await run(job, message) == "gave_up"

    failed = (await job.slides.require(TENANT, SLIDE)).error
    assert failed is not None
    assert failed.code == code
    assert "Doe" not in failed.detail
    assert "try again" not in failed.detail, "it was tried often enough"
    assert advice in failed.detail
    assert (outcome(job, "retried"), outcome(job, "gave_up")) == (settings.job_error_attempts - 1, 1)


async def test_an_error_that_passes_does_not_fail_the_slide(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    encode.error = ReaderDied("It died.")
    record = await uploaded(job)
    await jobs.enqueue(record)
    message = await taken(jobs)
    with pytest.raises(EncodeInterrupted, match="ReaderDied"):
        await run(job, message)

    encode.error = None

    assert await run(job, message) == "ready"
    assert (await job.slides.require(TENANT, SLIDE)).error is None


async def test_a_lost_device_ends_the_worker_and_spends_no_attempt_of_the_slide(
    job: EncodeJob, encode: FakeEncode
) -> None:
    record = await uploaded(job)
    ended: list[str] = []
    encode.error = DeviceLost("The GPU has failed.")
    message = Job(function="encode_slide", kwargs=arguments(record))

    with pytest.raises(EncodeInterrupted):
        await run(dataclasses.replace(job, on_device_lost=lambda: ended.append("worker")), message)

    assert ended == ["worker"]
    assert not message.meta.get("errors")
    assert (await job.slides.require(TENANT, SLIDE)).error is None


async def test_a_gpu_without_memory_for_one_tile_ends_the_worker_and_not_the_slide(
    job: EncodeJob, encode: FakeEncode
) -> None:
    record = await uploaded(job)
    ended: list[str] = []
    encode.error = DeviceFull("There is no memory for a single tile.")
    message = Job(function="encode_slide", kwargs=arguments(record), retries=2, attempts=2)

    with pytest.raises(EncodeInterrupted):
        await run(dataclasses.replace(job, on_device_lost=lambda: ended.append("worker")), message)

    assert ended == ["worker"]
    assert message.retryable, "although it was its last start"
    assert not message.meta.get("errors")


async def test_a_slide_waits_for_memory_without_spending_an_attempt_and_not_for_ever(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_job, "_MEMORY_WAITS", 2)
    encode.error = DeviceOutOfMemory("Too little.")
    record = await uploaded(job)
    await leave_a_part(job, record)
    await jobs.enqueue(record)
    message = await taken(jobs)
    message.attempts = settings.job_attempts

    for waits in (1, 2):
        with pytest.raises(EncodeInterrupted, match="too little memory"):
            await run(job, message)
        assert message.retryable
        assert (message.meta["memory_waits"], message.meta.get("errors")) == (waits, None)
        assert message.next_retry_delay() == 60
        message.attempts += 1
    assert len(await encoders_with_parts(job, record)) == 1, "no tile is encoded again"
    assert (await job.slides.require(TENANT, SLIDE)).error is None

    assert await run(job, message) == "out_of_memory_for_good"
    failed = (await job.slides.require(TENANT, SLIDE)).error
    assert failed is not None
    assert "The slide is intact" in failed.detail
    assert (outcome(job, "out_of_memory"), outcome(job, "out_of_memory_for_good")) == (2, 1)


async def test_memory_that_comes_back_does_not_fail_the_slide(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    encode.error = DeviceOutOfMemory("Too little.")
    record = await uploaded(job)
    await jobs.enqueue(record)
    message = await taken(jobs)
    with pytest.raises(EncodeInterrupted):
        await run(job, message)

    encode.error = None

    assert await run(job, message) == "ready"


class SilentEnd(ProgressLog):
    """Redis is away for everything but the last event."""

    async def append(self, tenant: str, slide_id: str, event: Any, model: str = "") -> None:
        if not event.is_last:
            await super().append(tenant, slide_id, event, model)


async def test_progress_that_redis_does_not_take_does_not_fail_the_encode(
    job: EncodeJob, jobs: EncodeJobs, settings_without_redis: Settings
) -> None:
    away = connect_redis(settings_without_redis)
    lossy = dataclasses.replace(job, progress=SilentEnd(away, 60))
    record = await uploaded(job)

    assert await deliver(lossy, jobs, record) == "ready"

    assert await job.embeddings.exists(record)
    await away.aclose()


async def test_an_encode_is_not_lost_when_redis_is_away_at_its_end(
    job: EncodeJob, make_job: MakeJob, jobs: EncodeJobs, encode: FakeEncode, settings_without_redis: Settings
) -> None:
    away = connect_redis(settings_without_redis)
    unlucky = dataclasses.replace(
        make_job(away), slides=SlideCatalogue(job.store, away, lambda mpp, features, budget: ENCODER)
    )
    record = await uploaded(job)
    await jobs.enqueue(record)
    message = await taken(jobs)

    with pytest.raises(EncodeInterrupted, match="ConnectionError"):
        await run(unlucky, message)

    assert await run(job, message) == "known"
    assert encode.calls == 1
    await away.aclose()
