"""Parts of an encode that was interrupted: who keeps, counts and removes them."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
from encode_jobs import (
    ENCODER,
    TENANT,
    arguments,
    deliver,
    encoders_with_parts,
    held,
    leave_a_part,
    run,
    taken,
    uploaded,
)
from fakes import FakeEncode, sample_embedding
from saq import Job
from structlog.testing import capture_logs

from encoders.caller import Caller
from encoders.errors import ReaderDied
from encoders.types import SlideEmbedding, SlideFile
from server.encoding.encode_job import EncodeInterrupted, EncodeJob
from server.encoding.jobs import EncodeJobs
from server.settings import Settings
from server.storage.slide_store import slides_folder


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

    assert await job.store.folders(slides_folder(TENANT)) == []


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


async def test_what_an_earlier_attempt_had_is_counted_apart(job: EncodeJob, jobs: EncodeJobs) -> None:
    record = await uploaded(job)
    await leave_a_part(job, record)
    encode = ResumingEncode(ENCODER)

    with capture_logs() as logged:
        assert await deliver(dataclasses.replace(job, encodes={"": encode}), jobs, record) == "ready"

    sample = job.metrics.registry.get_sample_value
    assert encode.part == b"part"
    assert (sample("eyepiece_tiles_resumed_total"), sample("eyepiece_tiles_encoded_total")) == (3, 4)
    assert sample("eyepiece_slides_opened_total", {"reader": "openslide", "reason": "other_vendor"}) == 1
    assert [it["reason"] for it in logged if it["event"] == "slow_reader"] == ["other_vendor"]
