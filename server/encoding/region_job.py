"""One region job: from the queue's message to a published embedding. It knows no model: what makes it is handed in.

Only stored features are read. What a killed attempt had got so far is a second's work and is done again; nothing is
kept of it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import structlog
from redis.exceptions import RedisError
from saq import Job

from encoders.caller import Caller
from encoders.embedding_file import to_bytes
from encoders.errors import DeviceLost, EncoderOverflowed, RegionError, StoredFileDamaged
from encoders.types import MppSource, SlideEmbedding
from model_store.errors import EyepieceError
from server.embeddings.cache import EmbeddingCache
from server.encoding.encode_job import EncodeInterrupted, heartbeat
from server.encoding.jobs import TRACE
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.region_record import RegionRecord, Regions, SlideRegion
from server.slides.slide_record import SlideError as Failure
from server.slides.slide_record import SlideRecord
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import WorkerMetrics
from server.telemetry.tracing import span
from server.to_the_end import to_the_end

log = structlog.get_logger(__name__)
MakeRegion = Callable[[RegionRecord, Path | BinaryIO, Caller], SlideEmbedding]
# The same features give the same again.
_FINAL = (RegionError, StoredFileDamaged, EncoderOverflowed)


@dataclass(frozen=True)
class RegionJob:
    """The parts that a region needs; `run` is the function that SAQ calls. `makes` has what makes a region's embedding
    for each model that this worker serves, the default's under ""."""

    settings: Settings
    store: SlideStore
    slides: SlideCatalogue
    regions: Regions
    embeddings: EmbeddingCache
    usage: Usage
    metrics: WorkerMetrics
    makes: Mapping[str, MakeRegion]
    on_device_lost: Callable[[], None]

    async def run(
        self,
        context: dict[str, Any],
        *,
        tenant: str,
        slide_id: str,
        encoder_id: str,
        generation: str,
        region_id: str,
        model: str = "",
    ) -> str:
        """Make one region's embedding; the outcome as a word.

        Raises:
            EyepieceError: something that may pass; SAQ tries again.
        """
        job: Job = context["job"]
        slide = await self.slides.find(tenant, slide_id, model)
        if slide is None or slide.generation != generation:
            return self._ended(job, model, "deleted")
        if slide.encoder_id != encoder_id or slide.model not in self.makes:
            return self._ended(job, model, "other_model")
        record = await self.regions.find(slide.paths, region_id)
        if record is None:
            return self._ended(job, model, "dropped")
        region = SlideRegion(slide, region_id)
        try:
            with span("make region", job.meta.get(TRACE)):
                return self._ended(job, model, await self._make(job, region, record))
        except _FINAL as error:
            await self._fail(slide, record, error)
            return self._ended(None, model, "failed")
        except DeviceLost as error:
            log.error("device_lost", slide=slide.id[:12], exc_info=error)
            self._ended(None, model, "device_lost")
            self.on_device_lost()
            raise EncodeInterrupted("The worker's device has failed.") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it spends one of the attempts that errors get
            return await self._try_again(job, slide, record, error)

    async def _make(self, job: Job, region: SlideRegion, record: RegionRecord) -> str:
        if await self.embeddings.exists(region):
            return "known"
        beating = asyncio.create_task(heartbeat(job, self.settings.job_heartbeat_s / 3))
        try:
            async with self.store.opened(region.slide.paths.features(record.encoder_id)) as features:
                embedding = await self._in_thread(region, record, features)
        except FileNotFoundError as error:
            if await self.slides.find(region.slide.tenant, region.slide.id) is None:
                return "deleted"
            raise StoredFileDamaged(
                "The slide's stored features are missing; delete the slide and upload it again."
            ) from error
        finally:
            beating.cancel()
        if region.slide.has_pixels and region.slide.features_sha256 is None:  # a file of levels does not say it
            source: MppSource = "property" if region.slide.mpp_override is None else "override"
            embedding = replace(embedding, mpp_source=source)
        # Not broken off half-way by a worker that leaves: what is published of a slide that is gone has to go too.
        return await to_the_end(self._publish(region, to_bytes(embedding)))

    async def _publish(self, region: SlideRegion, content: bytes) -> str:
        if await self.embeddings.publish(region, content):
            with contextlib.suppress(RedisError):  # counted anew within a day
                await self.usage.count_stored(region.slide.tenant, len(content))
        return await self._kept(region)

    async def _in_thread(self, region: SlideRegion, record: RegionRecord, features: Path | BinaryIO) -> SlideEmbedding:
        """Beside the event loop, so that the heartbeat goes on; cancelling stops it within the slide stage."""
        cancelled = threading.Event()
        make = self.makes[region.slide.model]
        work = asyncio.create_task(asyncio.to_thread(make, record, features, Caller(cancelled=cancelled)))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def _kept(self, region: SlideRegion) -> str:
        """What was published of a slide or region that is gone meanwhile is removed: nobody else would."""
        slide = region.slide
        if await self.slides.find(slide.tenant, slide.id) is None:
            if await self.slides.remove_orphan(slide.tenant, slide.id):
                await self.embeddings.forget(slide.tenant, slide.id)
            return "deleted"
        if await self.regions.find(slide.paths, region.region_id) is None:
            await self.embeddings.remove(region)
            return "dropped"
        return "ready"

    async def _fail(self, slide: SlideRecord, record: RegionRecord, error: EyepieceError) -> None:
        """Unless it was dropped meanwhile."""
        async with self.slides.lock(slide.tenant, slide.id):
            await self.regions.change(slide.paths, record.id, error=Failure(code=error.code, detail=error.detail))

    async def _try_again(self, job: Job, slide: SlideRecord, record: RegionRecord, error: Exception) -> str:
        errors = int(job.meta.get("errors", 0)) + 1
        job.meta["errors"] = errors
        log.warning("region_error", slide=slide.id[:12], attempt=errors, exc_info=error)
        if errors < self.settings.job_error_attempts:
            self._ended(None, slide.model, "retried")
            raise EncodeInterrupted(f"Making a region was interrupted by {type(error).__name__}.") from None
        gave_up = EyepieceError("Making the region failed repeatedly; the operator's log says why.")
        await self._fail(slide, record, error if isinstance(error, EyepieceError) else gave_up)
        return self._ended(None, slide.model, "gave_up")

    def _ended(self, job: Job | None, model: str, outcome: str) -> str:
        """With `job`, nothing is kept of it: whoever asks for the region again looks at its embedding."""
        if job is not None:
            job.ttl = -1
        self.metrics.regions.labels(model or self.settings.default_model, outcome).inc()
        return outcome
