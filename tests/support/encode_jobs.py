"""Encode jobs with a fake encode: a slide in the store, its job delivered, and what can be seen of it."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from fakes import FakeEncode
from saq import Job

from server.encoding.encode_job import EncodeJob
from server.encoding.encode_worker import WorkerQueue
from server.encoding.jobs import EncodeJobs
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore

ENCODER = "e" * 16
CONTENT = b"bytes"
TENANT, SLIDE = "default", hashlib.sha256(CONTENT).hexdigest()


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


async def uploaded(job: EncodeJob) -> SlideRecord:
    record = job.slides.new_record(TENANT, SLIDE, "Doe^Jane.svs", 5)
    staged = job.store.new_staging_path()
    staged.write_bytes(CONTENT)
    await job.store.publish_file(staged, record.paths.source)
    await job.slides.create(record)
    return record


async def deliver(job: EncodeJob, jobs: EncodeJobs, record: SlideRecord) -> str:
    """Queue the slide and run its job once, as a worker does."""
    await jobs.enqueue(record)
    return await run(job, await taken(jobs))


async def taken(jobs: EncodeJobs) -> Job:
    found = await WorkerQueue(jobs).dequeue()
    assert found is not None
    return found


async def run(job: EncodeJob, message: Job) -> str:
    arguments: dict[str, Any] = message.kwargs or {}
    return await job.run({"job": message}, **arguments)


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
    return (
        job.metrics.registry.get_sample_value("eyepiece_encode_jobs_total", {"model": "demo", "outcome": word}) or 0.0
    )


def staged_files(job: EncodeJob) -> list[Path]:
    return list(job.store.staging_dir.iterdir())


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


async def held(job: EncodeJob, jobs: EncodeJobs, encode: FakeEncode, record: SlideRecord) -> "asyncio.Task[str]":
    """The slide's job, in the middle of its encode."""
    encode.hold = True
    await jobs.enqueue(record)
    running = asyncio.create_task(run(job, await taken(jobs)))
    await asyncio.to_thread(encode.started.wait, 30)
    return running
