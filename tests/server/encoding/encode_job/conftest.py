"""One encode job with a fake encode, a real store and a real Redis."""

from collections.abc import Callable
from pathlib import Path

import pytest
from encode_jobs import ENCODER, JournalStore
from fakes import FakeEncode
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from server.admission.quota import Quota
from server.embeddings.cache import EmbeddingCache
from server.encoding.encode_job import EncodeJob
from server.encoding.jobs import EncodeJobs
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import ProgressLog
from server.slides.usage import Usage
from server.telemetry.metrics import Metrics, WorkerMetrics
from server.webhooks.outbox import Outbox

MakeJob = Callable[..., EncodeJob]


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    return JournalStore(tmp_path / "store")


@pytest.fixture
def encode() -> FakeEncode:
    return FakeEncode(ENCODER)


@pytest.fixture
def make_job(settings: Settings, store: JournalStore, redis: Redis, encode: FakeEncode) -> MakeJob:
    def make(client: Redis = redis) -> EncodeJob:
        return EncodeJob(
            settings=settings,
            store=store,
            slides=SlideCatalogue(
                store, redis, lambda mpp, features, budget: ENCODER if mpp is None and features is None else "f" * 16
            ),
            embeddings=EmbeddingCache(client, store, 60, Metrics(CollectorRegistry())),
            progress=ProgressLog(client, 60),
            outbox=Outbox(client),
            usage=Usage(client, store, Quota(), {}),
            metrics=WorkerMetrics(CollectorRegistry()),
            encodes={"": encode},
            on_device_lost=lambda: None,
        )

    return make


@pytest.fixture
def job(make_job: MakeJob) -> EncodeJob:
    return make_job()


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> EncodeJobs:
    return EncodeJobs(redis, settings)
