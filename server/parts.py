"""The parts that `server.app.build_app` joins, as one frozen argument for the flow and the routes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from redis.asyncio import Redis

from model_store.manifest import Manifest
from server.ask import LanguageModel
from server.auth import KeyRing
from server.conversations import Conversations
from server.drain import Drain
from server.embedding_cache import EmbeddingCache
from server.jobs import EncodeJobs
from server.metrics import Metrics
from server.progress import ProgressLog
from server.refusals import RefusalPace
from server.settings import Settings
from server.slide_inputs import AskedSlides, SlideInputs
from server.slide_inspection import SlideInspector
from server.slide_store import SlideStore
from server.slides import SlideCatalogue
from server.slots import TenantSlots
from server.thumbnails import Thumbnails
from server.usage import Usage


@dataclass(frozen=True)
class Parts:
    """Everything a request can need; built once."""

    settings: Settings
    manifest: Manifest
    redis: Redis
    store: SlideStore
    slides: SlideCatalogue
    keys: KeyRing
    jobs: EncodeJobs
    progress: ProgressLog
    embeddings: EmbeddingCache
    conversations: Conversations
    inspector: SlideInspector
    thumbnails: Thumbnails
    language_model: LanguageModel
    slide_inputs: SlideInputs
    asked_slides: AskedSlides
    metrics: Metrics
    drain: Drain
    usage: Usage
    refusals: RefusalPace
    question_slots: TenantSlots
    upload_slots: TenantSlots
    follower_slots: TenantSlots
    download_slots: TenantSlots


def parts_of(request: Request) -> Parts:
    """The parts of the application that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


WithParts = Annotated[Parts, Depends(parts_of)]
