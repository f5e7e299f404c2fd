"""The only place where the API's parts are joined. It imports no torch and parses no slide."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError
from starlette.types import ASGIApp

from encoders.encoder_id import encoder_id
from encoders.regions.outline import MAX_CORNERS
from model_store.errors import ModelError
from model_store.files.control_tokens import control_tokens
from model_store.installed import InstalledModel
from server.admission.rate_limits import RatePace
from server.admission.refusals import RefusalPace
from server.admission.slots import TenantSlots
from server.api.body_rate import BodyRate
from server.api.connections import ConnectionLimits, allow_descriptors, bounded_protocol
from server.api.contract.document import DocumentedAPI
from server.api.dependencies import (
    erase_tenant,
    expire_slides,
    forget_slide,
    pull_series,
    queue_encode,
    receive_series,
    receive_upload,
)
from server.api.drain import Drain, DrainGate, DrainingServer
from server.api.error_responses import add_error_responses, error_response
from server.api.parts import Parts
from server.api.request_bodies import BodyBounds, BodyLimit
from server.api.request_log import RequestLog
from server.api.response_headers import SafeHeaders
from server.api.routes import chat, dicomweb, slides, uploads
from server.api.routes.all_routers import ROUTERS
from server.api.tus_headers import TusHeaders
from server.asking.control_text import ControlText
from server.asking.conversations import Conversations
from server.asking.language_model import LanguageModel
from server.asking.served_models import ServedModel, ServedModels
from server.asking.vllm_client import VllmClient
from server.embeddings.cache import EmbeddingCache
from server.embeddings.slide_inputs import MEMORY_BYTES, SlideInputCache, SlideInputs
from server.embeddings.tile_places import TilePlacesCache
from server.encoding.derived_jobs import DerivedJobs
from server.encoding.jobs import EncodeJobs
from server.errors import QueueUnavailable
from server.identity.audit_log import AuditLog
from server.identity.audited_expiry import audited_expiry
from server.identity.credentials import open_credentials
from server.reports.report_record import ReportShelf
from server.served_models import open_served_models
from server.settings import Settings
from server.slides.catalogue import EncoderIds, SlideCatalogue
from server.slides.due_slides import DueSlides
from server.slides.evidence_record import EvidenceShelf
from server.slides.feedback import FeedbackShelf
from server.slides.instance_shelf import InstanceShelf
from server.slides.open_slides import OpenSlides
from server.slides.progress import ProgressLog
from server.slides.region_record import Regions
from server.slides.remembered_replies import RememberedReplies
from server.slides.series_index import SeriesIndex
from server.slides.thumbnails import Thumbnails
from server.slides.usage import Usage
from server.storage.redis_client import connect_redis
from server.storage.slide_store import open_store
from server.telemetry.logs import configure_logs
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import TraceRequests, configure_tracing
from server.upkeep.archive_walk import ArchiveWalk
from server.upkeep.engine_watch import EngineWatch
from server.upkeep.import_watch import ImportWatch
from server.upkeep.readiness import Readiness
from server.upkeep.reconciler import Reconciler
from server.upkeep.retention import Retention
from server.upkeep.series_watch import SeriesWatch
from server.upkeep.upload_sweep import UploadSweep
from server.upkeep.webhook_delivery import WebhookDelivery
from server.uploads.dicom.import_queue import ImportQueue
from server.uploads.dicom.import_record import ImportShelf
from server.uploads.dicom.series_clock import SeriesClock
from server.uploads.resumable.open_uploads import OpenUploads
from server.uploads.resumable.running_hash import RunningHashes
from server.uploads.resumable.upload_locks import UploadLocks
from server.uploads.resumable.upload_shelf import UploadShelf
from server.uploads.slide_inspection import SlideInspector, log_sandbox, reader_limits
from server.webhooks.outbox import Outbox
from server.webhooks.webhooks import Webhooks
from web.files import read_page

# FastAPI's own spans and log records hold whole paths, queries and the texts of exceptions; ours
# (`server.telemetry.tracing`) do not.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
# Draining has waited for all that was worth waiting for.
_AFTER_DRAIN_S = 1
# 200 messages of a few content parts each.
_MAX_CHAT_VALUES = 5_000
# A question has eight fields; the outline of a region three values for each corner.
_MAX_VALUES = 100 + 3 * MAX_CORNERS
# Behind this process and vLLM, beside encodes.
_VIEWERS_STAND_BACK = 3
# Named anew for every question otherwise, a tenth of a millisecond each; few slides have an override.
_REMEMBERED_ENCODERS = 1024
# Regions of levels that are made into JSON at once: ten milliseconds of the interpreter each, which answers need too.
_LEVELS_AT_ONCE = 2


def serve(settings: Settings) -> None:
    """Run the API until SIGTERM or SIGINT, then drain: `server.api.drain` says how."""
    configure_logs(settings.log_level)
    configure_tracing("eyepiece-api", settings.traces_url)
    app = build_app(settings, open_served_models(settings))
    parts: Parts = app.state.parts
    allow_descriptors(settings.max_connections)
    server_of(app, parts.drain, settings).run()


def server_of(app: ASGIApp, drain: Drain, settings: Settings) -> DrainingServer:
    """The HTTP server around an app; not running yet."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=bounded_protocol(
            ConnectionLimits(
                settings.max_connections,
                settings.max_connections_per_address,
                settings.head_timeout_s,
                settings.write_timeout_s,
            )
        ),
        timeout_graceful_shutdown=_AFTER_DRAIN_S,
    )
    return DrainingServer(config, drain, settings.drain_notice_s, settings.shutdown_grace_s)


def build_app(settings: Settings, models: Sequence[InstalledModel]) -> FastAPI:
    """The API over installed models, in the order of the settings; nothing is connected before it starts."""
    app = DocumentedAPI(
        title="Eyepiece",
        version=version("eyepiece"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        needs_key=settings.require_key or not settings.listens_on_loopback,
        takes_tokens=bool(settings.oidc_providers),
        lifespan=_lifespan,
        telemetry=_NO_TELEMETRY,
        openapi_url=None,  # server.api.routes.document: behind the key, and nothing of it from elsewhere
        redirect_slashes=False,  # it would redirect to whatever the Host header says
    )
    app.state.parts, app.state.made = build_parts(settings, models), {}
    app.state.readiness = build_readiness(app.state.parts)
    for router in ROUTERS:
        app.take(router)
    add_error_responses(app)
    app.add_middleware(
        BodyLimit,
        bounds_of=partial(_body_bounds, settings),
        max_together_bytes=settings.max_body_bytes * settings.max_concurrent_questions,
    )
    app.add_middleware(BodyRate, bytes_per_s=settings.min_body_bytes_per_s, window_s=settings.body_window_s)
    app.add_middleware(TusHeaders)
    app.add_middleware(DrainGate, drain=app.state.parts.drain, refusal=error_response)
    app.add_middleware(TraceRequests)
    app.add_middleware(SafeHeaders)
    app.add_middleware(RequestLog, metrics=app.state.parts.metrics)
    return app


def _body_bounds(settings: Settings, method: str, path: str) -> BodyBounds | None:
    """Only a chat may hold many values; every other JSON body is a question, or a region, and a few numbers."""
    if slides.is_upload(method, path) or uploads.is_upload(method, path) or dicomweb.is_upload(method, path):
        return None
    return BodyBounds(settings.max_body_bytes, _MAX_CHAT_VALUES if path == chat.CHAT_PATH else _MAX_VALUES)


def build_parts(settings: Settings, models: Sequence[InstalledModel]) -> Parts:
    """Every part, from settings and models."""
    metrics = Metrics(CollectorRegistry())
    redis = connect_redis(settings)
    store = open_store(settings)
    embeddings = EmbeddingCache(redis, store, settings.embedding_ttl_s, metrics)
    limits = replace(reader_limits(settings), niceness=_VIEWERS_STAND_BACK)
    shelf, drain = UploadShelf(store), Drain()
    open_slides = OpenSlides(store, limits, settings.view_readers, settings.view_idle_s, metrics)
    ids = {model.manifest.name: _encoder_ids(model) for model in models}
    return Parts(
        settings=settings,
        models=_served_models(settings, models, embeddings),
        redis=redis,
        store=store,
        slides=SlideCatalogue(store, redis, ids.pop(models[0].manifest.name), ids),
        series=SeriesIndex(store),
        instances=InstanceShelf(store),
        credentials=open_credentials(store, settings.oidc_providers),
        audit=None if settings.audit_dir is None else AuditLog(settings.audit_dir),
        jobs=EncodeJobs(redis, settings),
        region_jobs=DerivedJobs(redis, settings, "region"),
        regions=Regions(store, settings.max_regions_per_slide),
        evidence_jobs=DerivedJobs(redis, settings, "evidence"),
        evidence=EvidenceShelf(store, settings.max_evidence_per_slide),
        tile_places=TilePlacesCache(store),
        progress=ProgressLog(redis, settings.event_ttl_s),
        outbox=Outbox(redis),
        webhooks=Webhooks(redis, settings.webhooks),
        embeddings=embeddings,
        conversations=Conversations(redis, settings.conversation_ttl_s),
        feedback=FeedbackShelf(store),
        reports=ReportShelf(store),
        inspector=SlideInspector(settings),
        upload_shelf=shelf,
        upload_locks=UploadLocks(redis, lambda: drain.refusing),
        upload_hashes=RunningHashes(),
        open_uploads=OpenUploads(redis, settings.max_open_uploads_per_tenant),
        series_clock=SeriesClock(redis),
        imports=ImportShelf(store),
        import_queue=ImportQueue(redis),
        open_slides=open_slides,
        thumbnails=Thumbnails(open_slides),
        metrics=metrics,
        drain=drain,
        usage=Usage(redis, store, settings.quota, settings.tenant_quotas, shelf.reserved_bytes),
        replies=RememberedReplies(redis),
        refusals=RefusalPace(),
        rates=RatePace(redis, settings.rate_limits, settings.tenant_rate_limits, settings.caller_rate_limits),
        question_slots=TenantSlots(settings.max_concurrent_questions, "questions"),
        upload_slots=TenantSlots(settings.max_concurrent_uploads, "uploads"),
        follower_slots=TenantSlots(settings.max_concurrent_followers, "event streams"),
        download_slots=TenantSlots(settings.max_concurrent_downloads, "downloads"),
        evidence_slots=TenantSlots(settings.max_concurrent_evidence, "searches for evidence"),
        levels_turns=asyncio.Semaphore(_LEVELS_AT_ONCE),
        page=read_page(),
    )


def _encoder_ids(model: InstalledModel) -> EncoderIds:
    return lru_cache(_REMEMBERED_ENCODERS)(partial(encoder_id, model))


def _served_models(settings: Settings, models: Sequence[InstalledModel], embeddings: EmbeddingCache) -> ServedModels:
    """Every model behind its own vLLM; all have the same key."""
    key = settings.llm_api_key.get_secret_value()
    served: list[ServedModel] = []
    for address, model in zip(settings.served_models, models, strict=True):
        if not address.url:
            raise ModelError(f"EYEPIECE_MODELS names no vLLM for {address.name}; write {address.name}=URL.")
        inputs = SlideInputs(model.llm_digest, key)
        spoken_to = LanguageModel(VllmClient(address.url, key), model.manifest.llm.served_name, inputs)
        kept = SlideInputCache(embeddings, inputs, MEMORY_BYTES // len(models))
        control = ControlText(control_tokens(model.llm_folder))
        served.append(ServedModel(model.manifest, spoken_to, inputs, kept, control, model.weights_digest))
    return ServedModels(served)


def build_readiness(parts: Parts) -> Readiness:
    """What looks at all that the API depends on."""
    return Readiness(
        redis=parts.redis,
        store=parts.store,
        jobs=parts.jobs,
        engines={it.name: EngineWatch(it.language_model, it.slide_inputs, it.manifest) for it in parts.models},
        metrics=parts.metrics,
        is_draining=lambda: parts.drain.begun,
        crash_loop_file=parts.settings.crash_loop_file,
    )


def build_reconciler(parts: Parts) -> Reconciler:
    """What forgets no stored slide."""
    return Reconciler(
        redis=parts.redis,
        store=parts.store,
        slides=parts.slides,
        embeddings=parts.embeddings,
        jobs=parts.jobs,
        progress=parts.progress,
        outbox=parts.outbox,
        encodes=queue_encode(parts),
        forgetting=forget_slide(parts),
        metrics=parts.metrics,
        every_s=parts.settings.reconcile_every_s,
        default_model=parts.settings.default_model,
    )


def build_webhook_delivery(parts: Parts) -> WebhookDelivery:
    """What tells the operator's endpoints."""
    return WebhookDelivery(parts.outbox, parts.webhooks, parts.settings.webhook_attempts, parts.metrics)


def build_import_watch(parts: Parts) -> ImportWatch:
    """What goes on with imports."""
    kept_s = parts.settings.upload_lifetime_s
    return ImportWatch(parts.redis, parts.slides, pull_series(parts), kept_s)


def build_archive_walk(parts: Parts) -> ArchiveWalk:
    """What goes through all slides, now and then."""
    return ArchiveWalk(parts.redis, parts.store, parts.slides, parts.usage)


def build_retention(parts: Parts) -> Retention:
    """What ends the time that slides are kept for."""
    settings = parts.settings

    def days_of(tenant: str) -> int:
        return settings.tenant_retain_days.get(tenant, settings.retain_days)

    return Retention(parts.redis, parts.slides, expire_slides(parts), days_of, partial(audited_expiry, parts.audit))


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    background = [
        asyncio.create_task(app.state.readiness.run()),
        asyncio.create_task(build_reconciler(parts).run()),
        asyncio.create_task(build_archive_walk(parts).run()),
        asyncio.create_task(UploadSweep(parts.redis, parts.slides, receive_upload(parts)).run()),
        asyncio.create_task(build_webhook_delivery(parts).run()),
        asyncio.create_task(SeriesWatch(parts.redis, parts.slides, receive_series(parts)).run()),
        asyncio.create_task(build_import_watch(parts).run()),
        asyncio.create_task(build_retention(parts).run()),
        asyncio.create_task(log_sandbox()),
    ]
    if parts.audit is not None:
        background.append(asyncio.create_task(parts.audit.run(parts.store)))
    yield
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await parts.credentials.aclose()
    if parts.audit is not None:
        await parts.audit.aclose(parts.store)
    await _close(parts)


async def erase(settings: Settings, tenant: str, note: Callable[[str], Awaitable[None]]) -> dict[str, int]:
    """Erase a tenant from a process that serves nothing; `EraseTenant.erase` says what is told of it.

    Raises:
        QueueUnavailable: Redis does not answer; what is erased is not all.
    """
    parts = build_parts(settings, open_served_models(settings))
    try:
        return await erase_tenant(parts).erase(tenant, note)
    except RedisError as error:
        raise QueueUnavailable(
            "Redis does not answer: set EYEPIECE_REDIS_URL to the API's, and erase again."
        ) from error
    finally:
        await _close(parts)


async def due_slides(settings: Settings) -> list[DueSlides]:
    """What retention would delete now by these settings, from a process that serves nothing.

    Raises:
        QueueUnavailable: Redis does not answer.
    """
    parts = build_parts(settings, open_served_models(settings))
    try:
        return await build_retention(parts).due()
    except RedisError as error:
        raise QueueUnavailable("Redis does not answer: set EYEPIECE_REDIS_URL to the API's.") from error
    finally:
        await _close(parts)


async def _close(parts: Parts) -> None:
    await parts.open_slides.aclose()
    for model in parts.models:
        await model.language_model.aclose()
        await model.asked_slides.settled()
    await parts.redis.aclose()
