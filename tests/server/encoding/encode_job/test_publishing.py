"""What an encode job publishes, in which order, and when it has nothing to do."""

import asyncio
import hashlib
from typing import Any

import pytest
from api_parts import running_worker
from encode_jobs import (
    ENCODER,
    SLIDE,
    TENANT,
    JournalStore,
    arguments,
    deliver,
    names,
    outcome,
    run,
    staged_files,
    taken,
    uploaded,
)
from fakes import FakeEncode, sample_embedding
from redis.asyncio import Redis
from saq import Job

from encoders.embedding_file import from_bytes
from encoders.errors import NoTissue
from encoders.types import SlideWarning
from server.encoding.encode_job import EncodeInterrupted, EncodeJob
from server.encoding.jobs import EncodeJobs
from server.slides.public_slide import describe, describe_encoding
from server.slides.slide_record import SlideWarning as RecordedWarning


async def test_success_publishes_features_then_embedding_then_ready(
    job: EncodeJob, jobs: EncodeJobs, store: JournalStore
) -> None:
    record = await uploaded(job)
    store.published.clear()

    assert await deliver(job, jobs, record) == "ready"

    assert store.published == [record.paths.features(ENCODER), record.paths.embedding(ENCODER)]
    assert await names(job) == ["progress", "progress", "progress", "progress", "ready"]
    assert await store.get(record.paths.features(ENCODER)) == b"features"
    assert from_bytes(await store.get(record.paths.embedding(ENCODER)) or b"").slide_id == SLIDE
    assert (await job.slides.require(TENANT, SLIDE)).tile_count == 7
    assert outcome(job, "ready") == 1
    assert staged_files(job) == []


async def test_what_the_plan_doubts_is_on_the_slide_even_when_the_encode_fails(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    encode.warnings = (SlideWarning("level_not_believed", "Level 2 shows something else."),)
    encode.error = NoTissue("Nothing here.")
    record = await uploaded(job)

    assert await deliver(job, jobs, record) == "no_tissue"

    stored = await job.slides.require(TENANT, SLIDE)
    shown = describe(stored, [describe_encoding(stored, "demo", "failed")]).model_dump()["warnings"]
    assert shown == [{"code": "level_not_believed", "detail": "Level 2 shows something else."}]


async def test_doubts_of_an_earlier_encode_are_replaced(job: EncodeJob, jobs: EncodeJobs) -> None:
    doubt = RecordedWarning(code="a_code_of_an_older_version", detail="Something.")
    record = (await uploaded(job)).model_copy(update={"warnings": (doubt,)})
    await job.slides.update(record, lambda _: record)

    assert await deliver(job, jobs, record) == "ready"

    assert (await job.slides.require(TENANT, SLIDE)).warnings == ()


async def test_doubts_of_attached_features_stay_beside_those_of_the_encode(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    content = b"features of somebody"
    doubt = SlideWarning("features_doubted", "Half of the tissue is left out.")
    with_features = job.slides.with_features(await uploaded(job), hashlib.sha256(content).hexdigest(), [doubt])
    record = await job.slides.update(with_features, lambda _: with_features)
    assert record is not None
    assert record.features_sha256 is not None
    await job.store.put(record.paths.given_features(record.features_sha256), content)
    encode.warnings = (SlideWarning("tiles_thinned", "Every second tile was used."),)

    await deliver(job, jobs, record)

    stored = await job.slides.require(TENANT, SLIDE)
    assert [it.code for it in stored.warnings] == ["features_doubted", "tiles_thinned"]
    assert [it.code for it in job.slides.with_features(stored, None).warnings] == ["tiles_thinned"]


async def test_that_tiles_were_thinned_is_said_of_the_features_that_are_encoded(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    content = b"few features of somebody"
    said = [RecordedWarning(code=code, detail="Before.") for code in ("mpp_contradicted", "tiles_thinned")]
    before = (await uploaded(job)).model_copy(update={"warnings": tuple(said)})
    with_features = job.slides.with_features(before, hashlib.sha256(content).hexdigest())
    record = await job.slides.update(with_features, lambda _: with_features)
    assert record is not None
    assert record.features_sha256 is not None
    await job.store.put(record.paths.given_features(record.features_sha256), content)
    encode.warnings = ()

    await deliver(job, jobs, record)

    stored = await job.slides.require(TENANT, SLIDE)
    assert [it.code for it in stored.warnings] == ["mpp_contradicted"]


async def test_a_record_of_before_warnings_is_read(job: EncodeJob) -> None:
    record = await uploaded(job)
    await job.store.put(record.paths.record, record.model_dump_json(exclude={"warnings"}).encode())

    assert (await job.slides.require(TENANT, SLIDE)).warnings == ()


async def test_a_second_delivery_knows_the_slide(job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode) -> None:
    record = await uploaded(job)
    await deliver(job, jobs, record)

    assert await run(job, Job(function="encode_slide", kwargs=arguments(record))) == "known"

    assert encode.calls == 1
    assert (await job.slides.require(TENANT, SLIDE)).tile_count == 7


async def test_a_job_for_another_encoder_is_dropped_and_spends_nothing(job: EncodeJob, encode: FakeEncode) -> None:
    record = await uploaded(job)
    message = Job(function="encode_slide", kwargs=arguments(record) | {"encoder_id": "d" * 16})

    assert await run(job, message) == "other_model"

    assert encode.calls == 0
    assert message.ttl == -1, "the reconciler takes a job that ended for one that gave up"
    assert (await job.slides.require(TENANT, SLIDE)).error is None


async def test_a_damaged_embedding_is_made_again(job: EncodeJob, jobs: EncodeJobs) -> None:
    record = await uploaded(job)
    await job.store.put(record.paths.embedding(ENCODER), b"damaged")
    await jobs.enqueue(record)
    message = await taken(jobs)

    with pytest.raises(EncodeInterrupted, match="StoredFileDamaged"):
        await run(job, message)
    assert await run(job, message) == "ready"

    found = await job.embeddings.find(record)
    assert found is not None
    assert found.embedding.tile_count == sample_embedding(SLIDE, ENCODER).tile_count


async def test_a_real_worker_takes_a_queued_slide_to_ready(job: EncodeJob, jobs: EncodeJobs, redis: Redis) -> None:
    record = await uploaded(job)

    async with running_worker(jobs, job.run):
        await jobs.enqueue(record)
        assert (await names(job))[-1] == "ready"

    assert await job.embeddings.exists(record)


async def test_a_slide_deleted_while_a_worker_that_leaves_publishes_it_leaves_nothing(
    job: EncodeJob, jobs: EncodeJobs, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await uploaded(job)
    publish = job.embeddings.publish
    begun, deleted, done, go_on = (asyncio.Event() for _ in range(4))

    async def late(*what: Any) -> bool:
        begun.set()
        await deleted.wait()
        is_new = await publish(*what)
        done.set()
        await go_on.wait()
        return is_new

    monkeypatch.setattr(job.embeddings, "publish", late)
    delivery = asyncio.create_task(deliver(job, jobs, record))
    await asyncio.wait_for(begun.wait(), 60)
    await store.delete_folder(record.paths.folder)
    deleted.set()
    await asyncio.wait_for(done.wait(), 60)
    delivery.cancel()
    await asyncio.sleep(0)
    go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await delivery
    assert await store.keys_after(f"tenants/{TENANT}/slides", "", 10) == []


async def test_receivers_are_told_once_of_a_run_and_again_of_the_next(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    """An attempt that was killed behind the event tells it again under the same id."""
    record = await uploaded(job)
    await jobs.enqueue(record)
    message = await taken(jobs)
    assert (await run(job, message), await run(job, message)) == ("ready", "known")
    message.queued += 1
    await run(job, message)

    told = [event for _, event in await job.outbox.oldest(10) if event is not None]

    assert [event.type for event in told] == ["slide.ready"] * 3
    assert told[0].id == told[1].id != told[2].id
    assert "Doe" not in "".join(event.body for event in told)


async def test_receivers_are_told_of_a_failure_by_its_code(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    encode.error = NoTissue("There is no tissue.")

    await deliver(job, jobs, await uploaded(job))

    ((_, event),) = await job.outbox.oldest(10)
    assert event is not None
    assert event.type == "slide.failed"
    assert '"error_code":"no_tissue"' in event.body
