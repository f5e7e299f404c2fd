"""The parts that `server.app.build_app` joins. Only `server.app` and `server.api.dependencies` take them as a whole."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from server.admission.rate_limits import RatePace
from server.admission.refusals import RefusalPace
from server.admission.slots import TenantSlots
from server.api.drain import Drain
from server.asking.conversations import Conversations
from server.asking.served_models import ServedModels
from server.embeddings.cache import EmbeddingCache
from server.embeddings.tile_places import TilePlacesCache
from server.encoding.derived_jobs import DerivedJobs
from server.encoding.jobs import EncodeJobs
from server.identity.audit_log import AuditLog
from server.identity.credentials import Credentials
from server.reports.report_record import ReportShelf
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
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
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics
from server.uploads.dicom.import_queue import ImportQueue
from server.uploads.dicom.import_record import ImportShelf
from server.uploads.dicom.series_clock import SeriesClock
from server.uploads.resumable.open_uploads import OpenUploads
from server.uploads.resumable.running_hash import RunningHashes
from server.uploads.resumable.upload_locks import UploadLocks
from server.uploads.resumable.upload_shelf import UploadShelf
from server.uploads.slide_inspection import SlideInspector
from server.webhooks.outbox import Outbox
from server.webhooks.webhooks import Webhooks
from web.files import PageFile


@dataclass(frozen=True)
class Parts:
    """Everything a request can need; built once."""

    settings: Settings
    models: ServedModels
    redis: Redis
    store: SlideStore
    slides: SlideCatalogue
    series: SeriesIndex
    instances: InstanceShelf
    credentials: Credentials
    audit: AuditLog | None
    jobs: EncodeJobs
    region_jobs: DerivedJobs
    regions: Regions
    evidence_jobs: DerivedJobs
    evidence: EvidenceShelf
    tile_places: TilePlacesCache
    progress: ProgressLog
    outbox: Outbox
    webhooks: Webhooks
    embeddings: EmbeddingCache
    conversations: Conversations
    feedback: FeedbackShelf
    reports: ReportShelf
    inspector: SlideInspector
    upload_shelf: UploadShelf
    upload_locks: UploadLocks
    upload_hashes: RunningHashes
    open_uploads: OpenUploads
    series_clock: SeriesClock
    imports: ImportShelf
    import_queue: ImportQueue
    open_slides: OpenSlides
    thumbnails: Thumbnails
    metrics: Metrics
    drain: Drain
    usage: Usage
    replies: RememberedReplies
    refusals: RefusalPace
    rates: RatePace
    question_slots: TenantSlots
    upload_slots: TenantSlots
    follower_slots: TenantSlots
    download_slots: TenantSlots
    evidence_slots: TenantSlots
    levels_turns: asyncio.Semaphore
    page: Mapping[str, PageFile]
