"""A worker's real job, encoders and all, given slides made to harm: it fails with a reason and leaves nothing."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_parts import encode_job
from fakes import FakeEncode
from hostile_slides import level, slow_slide
from saq import Job
from tiff_draft import Directory, write_tiff

from encoders.caller import Caller
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.tiling.isolation.reader_process import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile
from model_store.installed import InstalledModel
from server.api.parts import Parts
from server.encoding.encode_job import EncodeInterrupted, EncodeJob
from server.encoding.encode_worker import WorkerQueue
from server.slides.slide_record import SlideRecord


@pytest.fixture(scope="module")
def encoders(demo_model: InstalledModel) -> Iterator[Encoders]:
    with load_encoders(demo_model, "cpu") as encoders:
        yield encoders


def worker_job(parts: Parts, encoders: Encoders, limits: ReaderLimits) -> EncodeJob:
    """As server.worker joins it."""

    def encode(slide: SlideFile, mpp: float | None, features_path: Path, caller: Caller) -> SlideEmbedding:
        return encode_slide(
            slide, encoders, mpp_override=mpp, limits=limits, features_path=features_path, caller=caller
        )

    return replace(encode_job(parts, FakeEncode("unused")), encodes={"": encode})


async def uploaded(parts: Parts, slide: bytes) -> tuple[SlideRecord, Job]:
    """The slide's record, and its job as a worker gets it."""
    record = parts.slides.new_record("default", hashlib.sha256(slide).hexdigest(), "Doe^Jane.svs", len(slide))
    staged = parts.store.new_staging_path()
    staged.write_bytes(slide)
    await parts.store.publish_file(staged, record.paths.source)
    await parts.slides.create(record)
    await parts.jobs.enqueue(record)
    message = await WorkerQueue(parts.jobs).dequeue()
    assert message is not None
    return record, message


async def run(job: EncodeJob, message: Job) -> str:
    return await job.run({"job": message}, **(message.kwargs or {}))


def files_of(parts: Parts, record: SlideRecord) -> set[str]:
    """Everything on disk that a slide has, and everything that is being written."""
    folder = next(parts.settings.data_dir.rglob(record.id))
    stored = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return stored | {path.name for path in parts.store.staging_dir.iterdir()}


def honest() -> list[Directory]:
    return [level(1_024, 768), level(256, 192)]


def damaged_at_its_end() -> list[Directory]:
    """A tile in the lowest row of tissue is cut off: all above it have been encoded by then."""
    first, second = honest()
    tiles = list(first.tiles)
    place = 9 * 16 + 8
    tiles[place] = tiles[place][: len(tiles[place]) // 2]
    return [replace(first, tiles=tiles), second]


async def test_a_damaged_slide_fails_at_once_and_the_worker_goes_on(parts: Parts, encoders: Encoders) -> None:
    job = worker_job(parts, encoders, ReaderLimits(deadline_s=100))
    record, message = await uploaded(parts, write_tiff(damaged_at_its_end()))

    assert await run(job, message) == "unreadable_slide"

    failed = (await parts.slides.require("default", record.id)).error
    assert failed is not None
    assert failed.code == "unreadable_slide"
    assert "level-0 rectangle" in failed.detail
    assert files_of(parts, record) == {"source/slide", "slide.json"}
    assert not await parts.embeddings.exists(record)
    intact, message = await uploaded(parts, write_tiff(honest()))
    assert await run(job, message) == "ready"
    assert (await parts.slides.require("default", intact.id)).tile_count


async def test_a_decoder_that_hangs_is_tried_again_and_then_given_up(parts: Parts, encoders: Encoders) -> None:
    settings = parts.settings.model_copy(update={"job_error_attempts": 2})
    job = replace(worker_job(parts, encoders, ReaderLimits(deadline_s=2)), settings=settings)
    record, message = await uploaded(parts, slow_slide())

    with pytest.raises(EncodeInterrupted, match="ReaderDied"):
        await run(job, message)
    assert (await parts.slides.require("default", record.id)).error is None
    assert await run(job, message) == "gave_up"

    failed = (await parts.slides.require("default", record.id)).error
    assert failed is not None
    assert failed.code == "unreadable_slide"
    assert files_of(parts, record) == {"source/slide", "slide.json"}
