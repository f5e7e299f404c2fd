"""The encoder worker: the one entry point that joins the server's parts and the models.

It loads and warms the encoders on the real path, or exits; then it takes jobs: one worker is one GPU, whose batches
are filled from all the slides that it has in hand. Slides are parsed in a reader process of its own
(encoders.tiling), never here.
"""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import structlog
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import RedisError

from encoders.caller import Caller
from encoders.device import choose_device, limit_memory
from encoders.encoder_id import encoder_id
from encoders.errors import DeviceLost
from encoders.evidence.leave_out import WantedEvidence, leave_out
from encoders.one_gpu import see_one_gpu
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.regions.encode_region import DrawnRegion, encode_region
from encoders.tile_encoder.compile_model import keep_compiled_code_in
from encoders.tiling.isolation.lower_priority import lower_priority
from encoders.types import SlideEmbedding, SlideFile
from model_store.installed import InstalledModel
from server.embeddings.cache import EmbeddingCache
from server.encoding.derived_jobs import DerivedJobs
from server.encoding.encode_job import EncodeJob
from server.encoding.encode_worker import DerivedWork, encode_worker
from server.encoding.evidence_job import EvidenceJob
from server.encoding.jobs import EncodeJobs
from server.encoding.region_job import RegionJob
from server.encoding.worker_health import WorkerHealth
from server.encoding.worker_presence import ANNOUNCE_EVERY_S, announce_worker, withdraw_worker
from server.served_models import open_served_models
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.evidence_record import EvidenceRecord, EvidenceShelf
from server.slides.progress import ProgressLog
from server.slides.region_record import RegionRecord, Regions
from server.slides.usage import Usage
from server.storage.redis_client import connect_redis
from server.storage.slide_store import SlideStore, open_store
from server.storage.worker_staging import private_staging
from server.telemetry.logs import configure_logs
from server.telemetry.metrics import Metrics, TileEncoderMetrics, WorkerMetrics
from server.telemetry.tracing import configure_tracing
from server.uploads.slide_inspection import log_sandbox, reader_limits
from server.webhooks.outbox import Outbox

log = structlog.get_logger(__name__)
# Behind an API and a vLLM on the same machine, of which somebody waits for each answer. Its readers inherit it.
_STAND_BACK = 3


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; the slides in hand go back to the queue."""
    lower_priority(os.getpid(), _STAND_BACK)
    configure_logs(settings.log_level)
    configure_tracing("eyepiece-worker", settings.traces_url)
    models, wanted = open_served_models(settings), settings.encoded_models
    where = choose_device(see_one_gpu(settings.device))
    limit_memory(where, settings.worker_gpu_memory)
    device = str(where)
    metrics = WorkerMetrics(CollectorRegistry())
    health = WorkerHealth(metrics, settings.worker_host, settings.worker_port)
    health.start()
    keep_compiled_code_in(settings.data_dir / "compiled")
    with contextlib.ExitStack() as loaded:
        encoders = load_served([model for model in models if model.manifest.name in wanted], settings, device, loaded)
        batchers = [given.batcher for one in encoders.values() for given in one.inputs.values()]
        batchers = list(dict.fromkeys(batchers))
        metrics.registry.register(TileEncoderMetrics(batchers))
        log.info("worker_warm", model=",".join(encoders), device=device, port=health.port)
        served = _Served(models, encoders)
        asyncio.run(_work(settings, served, metrics, health, slides_at_once(settings, device)))


@dataclass(frozen=True)
class _Served:
    """All served models, the default first, and the encoders by model of those that this worker encodes for."""

    models: Sequence[InstalledModel]
    encoders: Mapping[str, Encoders]

    def key(self, name: str) -> str:
        """How records and queues call a model: the default has no name there."""
        return "" if name == self.models[0].manifest.name else name

    def catalogue(self, store: SlideStore, redis: Redis) -> SlideCatalogue:
        """The records, as all served models see them."""
        default, *others = self.models
        ids = {model.manifest.name: partial(encoder_id, model) for model in others}
        return SlideCatalogue(store, redis, partial(encoder_id, default), ids)


def load_served(
    models: Sequence[InstalledModel], settings: Settings, device: str, loaded: contextlib.ExitStack
) -> dict[str, Encoders]:
    """The encoders by model, until the stack is closed. Models that differ behind their embeddings alone, in the
    language model, share one: its weights are on the device once, and tiles of their slides in one batch."""
    by_identity: dict[str, Encoders] = {}
    encoders = {}
    for model in models:
        identity = encoder_id(model)
        if identity not in by_identity:
            by_identity[identity] = loaded.enter_context(load_encoders(model, device, settings.slide_attention))
        encoders[model.manifest.name] = dataclasses.replace(by_identity[identity], model=model)
    return encoders


def slides_at_once(settings: Settings, device: str) -> int:
    """How many slides the worker has in hand; see the setting."""
    return settings.slides_at_once or (2 if device.startswith("cuda") else 1)


async def _work(settings: Settings, served: _Served, metrics: WorkerMetrics, health: WorkerHealth, slides: int) -> None:
    redis = connect_redis(settings)
    jobs = EncodeJobs(redis, settings)
    lost: list[bool] = []

    def leave() -> None:
        lost.append(True)
        os.kill(os.getpid(), signal.SIGTERM)  # as if asked to: other slides go back to the queue

    store = open_store(settings)
    store.remove_abandoned()
    encode_job = _encode_job(settings, store, served, metrics, redis, leave)
    await log_sandbox()
    async with private_staging(store), _announced(redis, health, tuple(served.encoders)):
        await encode_worker(
            jobs,
            encode_job.run,
            settings.job_sweep_s,
            slides_at_once=slides,
            models=tuple(encode_job.encodes),
            derived=[
                DerivedWork(DerivedJobs(redis, settings, "region"), _region_job(encode_job, served).run),
                DerivedWork(DerivedJobs(redis, settings, "evidence"), _evidence_job(encode_job, served).run),
            ],
        ).start()
    await redis.aclose()
    if lost:
        raise DeviceLost("The GPU has failed, or has no memory left. A new worker may work; if not, its log says why.")


def _encode_job(
    settings: Settings,
    store: SlideStore,
    served: _Served,
    metrics: WorkerMetrics,
    redis: Redis,
    on_device_lost: Callable[[], None],
) -> EncodeJob:
    limits = reader_limits(settings)

    def encode(
        encoders: Encoders, slide: SlideFile, mpp_override: float | None, features_path: Path, caller: Caller
    ) -> SlideEmbedding:
        return encode_slide(
            slide,
            encoders,
            mpp_override=mpp_override,
            limits=limits,
            features_path=features_path,
            caller=caller,
        )

    return EncodeJob(
        settings=settings,
        store=store,
        slides=served.catalogue(store, redis),
        embeddings=EmbeddingCache(redis, store, settings.embedding_ttl_s, Metrics(CollectorRegistry())),
        progress=ProgressLog(redis, settings.event_ttl_s),
        outbox=Outbox(redis),
        usage=Usage(redis, store, settings.quota, settings.tenant_quotas),
        metrics=metrics,
        encodes={served.key(name): partial(encode, encoders) for name, encoders in served.encoders.items()},
        on_device_lost=on_device_lost,
    )


def _region_job(slides: EncodeJob, served: _Served) -> RegionJob:
    """Over the same parts as the slides' job."""

    def make(encoders: Encoders, record: RegionRecord, features: Path | BinaryIO, caller: Caller) -> SlideEmbedding:
        drawn = DrawnRegion(record.id, record.slide_id, record.encoder_id, record.drawn)
        return encode_region(drawn, encoders, features, caller)

    return RegionJob(
        settings=slides.settings,
        store=slides.store,
        slides=slides.slides,
        records=Regions(slides.store, slides.settings.max_regions_per_slide),
        embeddings=slides.embeddings,
        usage=slides.usage,
        metrics=slides.metrics,
        makes={served.key(name): partial(make, encoders) for name, encoders in served.encoders.items()},
        on_device_lost=slides.on_device_lost,
    )


def _evidence_job(slides: EncodeJob, served: _Served) -> EvidenceJob:
    """Likewise."""

    def make(
        encoders: Encoders, record: EvidenceRecord, features: Path | BinaryIO, caller: Caller, first_part: int
    ) -> Iterator[SlideEmbedding]:
        wanted = WantedEvidence(record.id, record.slide_id, record.encoder_id, record.drawn, record.parent)
        return leave_out(wanted, encoders, features, caller, first_part)

    return EvidenceJob(
        settings=slides.settings,
        store=slides.store,
        slides=slides.slides,
        records=EvidenceShelf(slides.store, slides.settings.max_evidence_per_slide),
        embeddings=slides.embeddings,
        usage=slides.usage,
        metrics=slides.metrics,
        makes={served.key(name): partial(make, encoders) for name, encoders in served.encoders.items()},
        on_device_lost=slides.on_device_lost,
    )


@contextlib.asynccontextmanager
async def _announced(redis: Redis, health: WorkerHealth, models: Sequence[str]) -> AsyncIterator[None]:
    """Warm, and known to be, for as long as the block runs."""
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    announcing = asyncio.create_task(_announce(redis, worker_id, health, models))
    try:
        yield
    finally:
        announcing.cancel()
        health.ready = False
        with contextlib.suppress(RedisError):  # it forgets us by itself
            await withdraw_worker(redis, worker_id, models)


async def _announce(redis: Redis, worker_id: str, health: WorkerHealth, models: Sequence[str]) -> None:
    task = asyncio.current_task()
    while task is None or not task.cancelling():  # redis-py may swallow the cancellation: server/upkeep/rounds.py
        try:
            await announce_worker(redis, worker_id, models)
            health.ready = True
        except RedisError:
            health.ready = False
        await asyncio.sleep(ANNOUNCE_EVERY_S)
