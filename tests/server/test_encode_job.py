"""One encode job with a fake encode: what it publishes in which order, and what each way to fail leaves behind."""

import asyncio
import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_parts import running_worker, until
from fakes import FakeEncode, sample_embedding
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from saq import Job, Status

from encoders.caller import Caller
from encoders.embedding_file import from_bytes
from encoders.errors import DeviceLost, NoTissue, ReaderDied
from encoders.types import SlideEmbedding, SlideFile
from server.embedding_cache import EmbeddingCache
from server.encode_job import EncodeInterrupted, EncodeJob, heartbeat
from server.jobs import EncodeJobs, PrioritisedQueue
from server.metrics import Metrics, WorkerMetrics
from server.progress import ProgressLog
from server.redis_client import connect_redis
from server.settings import Settings
from server.slide_store import SlideStore
from server.slides import SlideCatalogue, SlideRecord

ENCODER = "e" * 16
TENANT, SLIDE = "default", "ab" * 32


class JournalStore(SlideStore):
    """A real store that notes what becomes visible, in order."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), folder)
        self.published: list[str] = []

    async def create(self, key: str, content: bytes) -> bool:
        self.published.append(key)
        return await super().create(key, content)

    async def publish_file(self, path: Path, key: str) -> bool:
        self.published.append(key)
        return await super().publish_file(path, key)


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    return JournalStore(tmp_path / "store")


@pytest.fixture
def encode() -> FakeEncode:
    return FakeEncode(ENCODER)


MakeJob = Callable[..., EncodeJob]


@pytest.fixture
def make_job(settings: Settings, store: JournalStore, redis: Redis, encode: FakeEncode) -> MakeJob:
    def make(client: Redis = redis) -> EncodeJob:
        return EncodeJob(
            settings=settings,
            store=store,
            slides=SlideCatalogue(
                store, redis, lambda mpp, features: ENCODER if mpp is None and features is None else "f" * 16
            ),
            embeddings=EmbeddingCache(client, store, 60, Metrics(CollectorRegistry())),
            progress=ProgressLog(client, 60),
            metrics=WorkerMetrics(CollectorRegistry()),
            encode=encode,
            on_device_lost=lambda: None,
        )

    return make


@pytest.fixture
def job(make_job: MakeJob) -> EncodeJob:
    return make_job()


async def uploaded(job: EncodeJob) -> SlideRecord:
    record = job.slides.new_record(TENANT, SLIDE, "Doe^Jane.svs", 5)
    staged = job.store.new_staging_path()
    staged.write_bytes(b"bytes")
    await job.store.publish_file(staged, record.paths.source)
    await job.slides.create(record)
    return record


async def deliver(job: EncodeJob, jobs: EncodeJobs, record: SlideRecord) -> str:
    """Queue the slide and run its job once, as a worker does."""
    await jobs.enqueue(record)
    return await run(job, await taken(jobs))


async def taken(jobs: EncodeJobs) -> Job:
    found = await PrioritisedQueue(jobs).dequeue()
    assert found is not None
    return found


async def run(job: EncodeJob, message: Job) -> str:
    arguments: dict[str, Any] = message.kwargs or {}
    return await job.run({"job": message}, **arguments)


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> EncodeJobs:
    return EncodeJobs(redis, settings)


async def names(job: EncodeJob) -> list[str]:
    names = []
    async for event in job.progress.follow(TENANT, SLIDE, "0-0"):
        if event is None:
            break
        names.append(event.name)
        if event.is_last:
            break
    return names


def outcome(job: EncodeJob, word: str) -> float:
    return job.metrics.registry.get_sample_value("eyepiece_encode_jobs_total", {"outcome": word}) or 0.0


def staged_files(job: EncodeJob) -> list[Path]:
    return list(job.store.staging_dir.iterdir())


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


async def test_a_second_delivery_knows_the_slide(job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode) -> None:
    record = await uploaded(job)
    await deliver(job, jobs, record)

    assert await run(job, Job(function="encode_slide", kwargs=arguments(record))) == "known"

    assert encode.calls == 1
    assert (await job.slides.require(TENANT, SLIDE)).tile_count == 7


def arguments(record: SlideRecord) -> dict[str, str]:
    return {
        "tenant": record.tenant,
        "slide_id": record.id,
        "encoder_id": record.encoder_id,
        "generation": record.generation,
    }


async def leave_a_part(job: EncodeJob, record: SlideRecord, encoder: str = ENCODER) -> None:
    await job.store.put(f"{record.paths.parts(encoder)}/000000000-3.safetensors", b"part")


async def encoders_with_parts(job: EncodeJob, record: SlideRecord) -> list[str]:
    return await job.store.folders(record.paths.all_parts)


async def test_parts_go_when_the_embedding_is_published(job: EncodeJob, jobs: EncodeJobs) -> None:
    record = await uploaded(job)
    await leave_a_part(job, record)
    await leave_a_part(job, record, "f" * 16)

    assert await deliver(job, jobs, record) == "ready"

    assert await encoders_with_parts(job, record) == ["f" * 16]


async def test_parts_go_when_a_delivery_knows_the_slide(job: EncodeJob, jobs: EncodeJobs) -> None:
    record = await uploaded(job)
    await deliver(job, jobs, record)
    await leave_a_part(job, record)  # its worker died between publishing and removing

    assert await run(job, Job(function="encode_slide", kwargs=arguments(record))) == "known"

    assert await encoders_with_parts(job, record) == []


async def test_parts_stay_while_an_error_may_pass_and_go_when_it_is_believed(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, settings: Settings
) -> None:
    encode.error = ReaderDied("It died.")
    record = await uploaded(job)
    await leave_a_part(job, record)
    await jobs.enqueue(record)
    message = await taken(jobs)
    for _ in range(settings.job_error_attempts - 1):
        with pytest.raises(EncodeInterrupted):
            await run(job, message)
        assert await encoders_with_parts(job, record) == [ENCODER]

    assert await run(job, message) == "gave_up"

    assert await encoders_with_parts(job, record) == []


async def test_a_slide_that_was_deleted_while_it_was_encoded_leaves_no_part(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode
) -> None:
    record = await uploaded(job)
    running = await held(job, jobs, encode, record)
    await job.store.delete_folder(record.paths.folder)
    await leave_a_part(job, record)  # it was on its way

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert await job.slides.ids(TENANT) == []


class ResumingEncode(FakeEncode):
    """Has three of seven tiles from an earlier attempt, which another reader read."""

    def __call__(
        self, slide: SlideFile, mpp_override: float | None, features_path: Path, caller: Caller
    ) -> SlideEmbedding:
        self.part = caller.parts.read("000000000-3.safetensors")
        caller.on_opened("openslide", "other_vendor")
        for stage, done in (("tile", 1), ("encode_tiles", 3), ("encode_tiles", 7)):
            caller.on_progress(stage, done, 7)  # type: ignore[arg-type]
        return sample_embedding(slide.slide_id, self.encoder_id)


async def test_what_an_earlier_attempt_had_is_counted_apart(
    job: EncodeJob, jobs: EncodeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    record = await uploaded(job)
    await leave_a_part(job, record)
    encode = ResumingEncode(ENCODER)

    assert await deliver(dataclasses.replace(job, encode=encode), jobs, record) == "ready"

    sample = job.metrics.registry.get_sample_value
    assert encode.part == b"part"
    assert (sample("eyepiece_tiles_resumed_total"), sample("eyepiece_tiles_encoded_total")) == (3, 4)
    assert sample("eyepiece_slides_opened_total", {"reader": "openslide", "reason": "other_vendor"}) == 1
    logged = capsys.readouterr().out
    assert "slow_reader" in logged
    assert "reason=other_vendor" in logged


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


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("Doe^Jane"), "internal_error"), (ReaderDied("It died."), "unreadable_slide")]
)
async def test_another_error_is_tried_again_before_it_is_believed(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, settings: Settings, error: Exception, code: str
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


async def nothing_left(redis: Redis) -> bool:
    return not [key for key in await redis.keys("*") if SLIDE.encode() in key]


async def held(job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, record: SlideRecord) -> "asyncio.Task[str]":
    """The slide's job, in the middle of its encode."""
    encode.hold = True
    await jobs.enqueue(record)
    running = asyncio.create_task(run(job, await taken(jobs)))
    await asyncio.to_thread(encode.started.wait, 30)
    return running


async def test_a_slide_deleted_meanwhile_publishes_nothing(
    job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, redis: Redis
) -> None:
    record = await uploaded(job)
    running = await held(job, jobs, encode, record)
    await job.store.delete_folder(record.paths.folder)

    encode.release.set()
    await running

    assert await job.slides.ids(TENANT) == []
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


async def test_a_job_for_another_encoder_is_dropped_and_spends_nothing(job: EncodeJob, encode: FakeEncode) -> None:
    record = await uploaded(job)
    message = Job(function="encode_slide", kwargs=arguments(record) | {"encoder_id": "d" * 16})

    assert await run(job, message) == "other_model"

    assert encode.calls == 0
    assert message.ttl == -1, "the reconciler takes a job that ended for one that gave up"
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


async def test_progress_that_redis_does_not_take_does_not_fail_the_encode(
    job: EncodeJob, jobs: EncodeJobs, settings_without_redis: Settings
) -> None:
    away = connect_redis(settings_without_redis)
    lossy = dataclasses.replace(job, progress=SilentEnd(away, 60))
    record = await uploaded(job)

    assert await deliver(lossy, jobs, record) == "ready"

    assert await job.embeddings.exists(record)
    await away.aclose()


class SilentEnd(ProgressLog):
    """Redis is away for everything but the last event."""

    async def append(self, tenant: str, slide_id: str, event: Any) -> None:
        if not event.is_last:
            await super().append(tenant, slide_id, event)


async def test_an_encode_is_not_lost_when_redis_is_away_at_its_end(
    job: EncodeJob, make_job: MakeJob, jobs: EncodeJobs, encode: FakeEncode, settings_without_redis: Settings
) -> None:
    away = connect_redis(settings_without_redis)
    unlucky = dataclasses.replace(make_job(away), slides=SlideCatalogue(job.store, away, lambda mpp, features: ENCODER))
    record = await uploaded(job)
    await jobs.enqueue(record)
    message = await taken(jobs)

    with pytest.raises(EncodeInterrupted, match="ConnectionError"):
        await run(unlucky, message)

    assert await run(job, message) == "known"
    assert encode.calls == 1
    await away.aclose()


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
