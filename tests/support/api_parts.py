"""What tests of the API start from: a client of an app, a slide that was uploaded long ago, a worker."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from contract import CheckedClient, contract_of
from fakes import FakeEncode, sample_embedding
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from saq import Job

from encoders.embedding_file import to_bytes
from server.api.parts import Parts
from server.encoding.encode_job import EncodeJob
from server.encoding.encode_worker import DerivedWork, WorkerQueue, encode_worker
from server.encoding.jobs import EncodeJobs
from server.slides.slide_record import SlideRecord
from server.telemetry.metrics import WorkerMetrics

_LONG_AGO_MS = 10**7

_QUEUES = ("routine", "urgent", "regions", "evidence")


def client_of(app: FastAPI, key: str | None = None, **headers: str) -> httpx.AsyncClient:
    """A client of an app that holds answers against its document; an unexpected error is a 500, as for real clients."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return CheckedClient(contract_of(app), transport=transport, base_url="http://127.0.0.1:8000", headers=headers)


async def stored_slide(
    parts: Parts,
    name: str = "slide",
    *,
    tenant: str = "default",
    ready: bool = False,
    whole: bool = False,
    **facts: object,
) -> SlideRecord:
    """A stored slide whose id is made from `name`; with `whole` it is that of its bytes, as an encode wants it."""
    slide_id = hashlib.sha256(b"bytes").hexdigest() if whole else name.encode().hex().ljust(64, "0")[:64]
    record = parts.slides.new_record(tenant, slide_id, f"{name}.svs", 5).model_copy(update=facts)
    staged = parts.store.new_staging_path()
    staged.write_bytes(b"bytes")
    await parts.slides.announce(record)
    await parts.store.publish_file(staged, record.paths.source)
    await parts.slides.create(record)
    if ready:
        embedding = sample_embedding(record.id, record.encoder_id)
        await parts.store.put(record.paths.embedding(record.encoder_id), to_bytes(embedding))
        await parts.store.put(record.paths.features(record.encoder_id), b"features")
    return record


@asynccontextmanager
async def running_worker(
    jobs: EncodeJobs,
    run: Callable[..., Awaitable[str]],
    models: Sequence[str] = ("",),
    *derived: DerivedWork,
) -> AsyncIterator[None]:
    """A real worker as server.worker starts it, with `run` for an encode, that looks for cancelled jobs more often."""
    worker = encode_worker(jobs, run, sweep_every_s=1, models=models, derived=derived, abort_every_s=0.05)
    working = asyncio.create_task(worker.start())
    try:
        yield
    finally:
        worker.event.set()
        await working


async def until(holds: Callable[[], bool | Awaitable[bool]], within_s: float = 60.0) -> None:
    """Wait for what happens elsewhere and tells nobody; after `within_s` it will not happen any more."""
    async with asyncio.timeout(within_s):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


async def lose_lease(queue: WorkerQueue, job: Job) -> None:
    """The worker of a running job dies, and time passes until another one looks."""
    job.touched -= _LONG_AGO_MS
    await queue.redis.set(job.id, job.get_queue().serialize(job))
    await queue.redis.delete(*(f"saq:eyepiece-{name}:sweep" for name in _QUEUES))
    await queue.sweep()


async def make_due(queue: WorkerQueue, redis: Redis) -> None:
    """Time passes until delayed retries are due."""
    for name in _QUEUES:
        for job_id in await redis.zrangebyscore(f"saq:eyepiece-{name}:incomplete", 1, "+inf"):
            await redis.zadd(f"saq:eyepiece-{name}:incomplete", {job_id: 1})
    await redis.delete(*(f"saq:eyepiece-{name}:schedule" for name in _QUEUES))
    await queue.schedule()


async def upload(client: httpx.AsyncClient, content: bytes, name: str = "Doe^Jane.svs") -> httpx.Response:
    """Upload a slide of one file."""
    return await client.post("/v1/slides", files={"file": (name, content)})


def encode_job(parts: Parts, encode: FakeEncode) -> EncodeJob:
    """The encode job of a worker over the same parts as the API."""
    return EncodeJob(
        settings=parts.settings,
        store=parts.store,
        slides=parts.slides,
        embeddings=parts.embeddings,
        progress=parts.progress,
        outbox=parts.outbox,
        usage=parts.usage,
        metrics=WorkerMetrics(CollectorRegistry()),
        encodes={"": encode},
        on_device_lost=lambda: None,
    )


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of the server-sent events of a response; comments are left out."""
    blocks = [block.split("\n") for block in response.text.split("\n\n") if block and not block.startswith(":")]
    fields = [dict(line.split(": ", 1) for line in block) for block in blocks]
    return [(block["event"], json.loads(block["data"])) for block in fields]


def problem_of(response: httpx.Response, status: int) -> str:
    """The code of an error, which has the shape of RFC 9457."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "code", "detail", "request_id"}
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert body["status"] == status
    return str(body["code"])
