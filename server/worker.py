"""The encoder worker: the one entry point that joins the server's parts and the models.

It loads and warms the encoders on the real path, or exits; then it takes jobs, one slide at a time: one worker is
one GPU. Slides are parsed in a reader process of its own (encoders.tiling), never here.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import structlog
import torch
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import RedisError

from encoders.encoder_id import encoder_id
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.types import SlideEmbedding, SlideFile
from model_store.installed import InstalledModel
from model_store.packaged_models import open_or_install
from server.embedding_cache import EmbeddingCache
from server.encode_job import EncodeJob, OnProgress
from server.encode_worker import encode_worker
from server.jobs import EncodeJobs
from server.logs import configure_logs
from server.metrics import Metrics, WorkerMetrics
from server.progress import ProgressLog
from server.redis_client import connect_redis
from server.settings import Settings
from server.slide_inspection import reader_limits
from server.slide_store import open_store
from server.slides import SlideCatalogue
from server.worker_health import WorkerHealth
from server.worker_presence import ANNOUNCE_EVERY_S, announce_worker, withdraw_worker

log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; the slide in hand goes back to the queue."""
    configure_logs(settings.log_level)
    model = open_or_install(settings.installed_models_dir, settings.model)
    device = _device(settings.device)
    metrics = WorkerMetrics(CollectorRegistry())
    health = WorkerHealth(metrics, settings.host if settings.worker_port else "127.0.0.1", settings.worker_port)
    health.start()
    encoders = load_encoders(model, device)
    log.info("worker_warm", model=model.manifest.name, device=device, port=health.port)
    asyncio.run(_work(settings, model, encoders, metrics, health))


async def _work(
    settings: Settings, model: InstalledModel, encoders: Encoders, metrics: WorkerMetrics, health: WorkerHealth
) -> None:
    redis = connect_redis(settings)
    jobs = EncodeJobs(redis, settings)
    encode_job = _encode_job(settings, model, encoders, metrics, redis)
    async with _announced(redis, health):
        await encode_worker(jobs, encode_job.run, settings.job_sweep_s).start()
    await redis.aclose()


def _encode_job(
    settings: Settings, model: InstalledModel, encoders: Encoders, metrics: WorkerMetrics, redis: Redis
) -> EncodeJob:
    limits = reader_limits(settings)

    def encode(
        slide: SlideFile,
        mpp_override: float | None,
        features_path: Path,
        on_progress: OnProgress,
        cancelled: threading.Event,
    ) -> SlideEmbedding:
        return encode_slide(
            slide,
            encoders,
            mpp_override=mpp_override,
            limits=limits,
            features_path=features_path,
            on_progress=on_progress,
            cancelled=cancelled,
        )

    store = open_store(settings)
    store.remove_abandoned()
    return EncodeJob(
        settings=settings,
        store=store,
        slides=SlideCatalogue(store, redis, partial(encoder_id, model)),
        embeddings=EmbeddingCache(redis, store, settings.embedding_ttl_s, Metrics(CollectorRegistry())),
        progress=ProgressLog(redis, settings.event_ttl_s),
        metrics=metrics,
        encode=encode,
    )


@contextlib.asynccontextmanager
async def _announced(redis: Redis, health: WorkerHealth) -> AsyncIterator[None]:
    """Warm, and known to be, for as long as the block runs."""
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    announcing = asyncio.create_task(_announce(redis, worker_id, health))
    try:
        yield
    finally:
        announcing.cancel()
        health.ready = False
        with contextlib.suppress(RedisError):  # it forgets us by itself
            await withdraw_worker(redis, worker_id)


async def _announce(redis: Redis, worker_id: str, health: WorkerHealth) -> None:
    while True:
        try:
            await announce_worker(redis, worker_id)
            health.ready = True
        except RedisError:
            health.ready = False
        await asyncio.sleep(ANNOUNCE_EVERY_S)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
