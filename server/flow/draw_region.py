"""A region is drawn on a slide, made by a worker from what is stored of the slide's tiles, and asked about."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError
from saq import Status as JobStatus

from encoders.errors import RegionsUnavailable
from encoders.regions.outline import Outline
from encoders.regions.tile_places import TilePlaces, region_id
from server.asking.served_models import ServedModel, ServedModels
from server.embeddings.cache import EmbeddingCache
from server.embeddings.tile_places import TilePlacesCache
from server.encoding.derived_jobs import DerivedJobs
from server.errors import NotFound, RegionFailed, RegionNotReady
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue
from server.slides.public_region import Region, describe_region
from server.slides.public_slide import Status
from server.slides.region_record import RegionRecord, Regions, SlideRegion
from server.slides.slide_record import SlideError, SlideRecord, SlideWarning, now
from server.slides.usage import Usage

_RETRY_S = 1
# A region is ready within a second, or there is no worker for a while.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.02, 0.25
# A use is written down when the last one that was is older than this: a question is not to cost a write.
_USE_EVERY = timedelta(minutes=10)
GAVE_UP = SlideError(
    code="region_failed",
    detail="Every attempt to make this region stopped its worker; draw another one, and tell the operator.",
)


@dataclass(frozen=True)
class DrawRegion:
    """Draws regions on slides of all tenants, and has them made."""

    slides: SlideCatalogue
    regions: Regions
    jobs: DerivedJobs
    embeddings: EmbeddingCache
    places: TilePlacesCache
    encodes: QueueEncode
    usage: Usage
    models: ServedModels
    wait_s: float

    async def draw(self, tenant: str, slide_id: str, outline: Outline, model_name: str | None) -> Region:
        """The region, which is made from now on; the same tiles give the same one.

        Raises:
            NotFound, RecordUnreadable, SlideNotReady, SlideFailed: there is nothing to draw on.
            RegionError: this cannot be asked about.
            QuotaExceeded, Overloaded, QueueUnavailable: not now.
        """
        model = self.models.named(model_name)
        slide = await self.slides.require(tenant, slide_id, model.name)
        record = await self._tried_again(slide, await self.drawn(slide, model, outline))
        return await self._begun(slide, model, record)

    async def show(self, slide: SlideRecord, model: ServedModel, wanted_id: str) -> Region:
        """The region as it stands.

        Raises:
            NotFound: the slide has none of this id, as this model sees it.
            Overloaded, QueueUnavailable: its lost job cannot be queued now.
        """
        record = await self.regions.find(slide.paths, wanted_id)
        if record is None or record.encoder_id != slide.encoder_id:
            raise _no_such_region()
        return await self._begun(slide, model, record)

    async def wanted(self, slide: SlideRecord, model: ServedModel, asked: str | Outline) -> RegionRecord:
        """The region that a question names by id or draws; made or not. One that was drawn on another encoding of the
        slide is drawn anew on this model's.

        Raises:
            NotFound: the slide has none of this id.
            SlideNotReady, …: as `draw`.
        """
        if isinstance(asked, str):
            record = await self.regions.find(slide.paths, asked)
            if record is None:
                raise _no_such_region()
            if record.encoder_id != slide.encoder_id:
                record = await self.drawn(slide, model, await asyncio.to_thread(Outline.of, record.outline))
        else:
            record = await self._tried_again(slide, await self.drawn(slide, model, asked))
        await self._note_use(slide, record)
        return record

    async def make(self, region: SlideRegion, record: RegionRecord) -> None:
        """Have a region made that is not, and wait for it a while.

        Raises:
            RegionNotReady, RegionFailed: it is not made yet, or cannot be.
            Overloaded, QueueUnavailable: not now.
        """
        _require_makable(record)
        _require_makable(await self._queue(region, record))
        await self._made(region, record)

    async def drawn(self, slide: SlideRecord, model: ServedModel, outline: Outline) -> RegionRecord:
        """The record of the region within an outline, kept from now on."""
        if not await self.embeddings.exists(slide):
            await self.encodes.refuse_unencoded(slide, model.name)
        if model.manifest.reads == "tiles" and len(model.manifest.inputs) != 1:
            raise RegionsUnavailable("This model keeps too little of a slide for a region of it; ask another one.")
        places, chosen = await self.places.inside(slide, outline)
        name = region_id(slide.id, slide.encoder_id, places.coords[chosen])
        known = await self.regions.find(slide.paths, name)
        if known is not None:
            return known
        record = RegionRecord(
            id=name,
            slide_id=slide.id,
            encoder_id=slide.encoder_id,
            outline=tuple((x, y) for x, y in outline.corners.tolist()),
            tiles=len(chosen),
            area_mm2=await asyncio.to_thread(_area_mm2, places, slide, chosen),
            warnings=_thinning(model, len(chosen)),
            created_at=now(),
            used_at=now(),
        )
        await self._keep(slide, record)
        return record

    async def _keep(self, slide: SlideRecord, record: RegionRecord) -> None:
        await self.usage.require_room(slide.tenant, 0)
        async with self.slides.lock(slide.tenant, slide.id):
            stored = await self.slides.find(slide.tenant, slide.id)
            if stored is None or stored.generation != slide.generation:
                raise NotFound("The slide was deleted meanwhile.")
            freed = await self.regions.make_room(slide.paths, record.id)
            more = await self.regions.keep(slide.paths, record)
        await self.usage.count_stored(slide.tenant, more - freed)

    async def _tried_again(self, slide: SlideRecord, record: RegionRecord) -> RegionRecord:
        """Whoever draws a region that could not be made wants it tried again."""
        if record.error is None:
            return record
        async with self.slides.lock(slide.tenant, slide.id):
            await self.regions.change(slide.paths, record.id, error=None)
        return record.model_copy(update={"error": None})

    async def _note_use(self, slide: SlideRecord, record: RegionRecord) -> None:
        """It was asked about, so others go before it."""
        if now() - record.used_at > _USE_EVERY:
            with contextlib.suppress(RedisError):  # away, or somebody has the slide: the answer is worth more
                async with self.slides.lock(slide.tenant, slide.id, 0):
                    await self.regions.change(slide.paths, record.id, used_at=now())

    async def _begun(self, slide: SlideRecord, model: ServedModel, record: RegionRecord) -> Region:
        """How the region stands; one that has neither embedding nor job is queued."""
        region = SlideRegion(slide, record.id)
        status: Status = "ready"
        if not await self.embeddings.exists(region):
            if record.error is None:
                record = await self._queue(region, record)
            running = await self.jobs.is_running(region)
            status = "failed" if record.error is not None else "encoding" if running else "queued"
        return describe_region(record, model.name, status)

    async def _queue(self, region: SlideRegion, record: RegionRecord) -> RegionRecord:
        """Queue it, unless all its attempts have killed their workers: then it has failed."""
        ended = await self._ended_job_is_poison(region)
        if ended:
            async with self.slides.lock(region.slide.tenant, region.slide.id):
                await self.regions.change(region.slide.paths, record.id, error=GAVE_UP)
            await self.jobs.forget(region)
            return record.model_copy(update={"error": GAVE_UP})
        await self.jobs.enqueue(region)
        return record

    async def _ended_job_is_poison(self, region: SlideRegion) -> bool:
        try:
            job = await self.jobs.find(region, finished=True)
        except RedisError:
            return False  # `enqueue` says so
        return job is not None and job.status in (JobStatus.ABORTED, JobStatus.FAILED) and not job.retryable

    async def _made(self, region: SlideRegion, record: RegionRecord) -> None:
        """Looks for the embedding until it is there, cannot be made, or it takes too long."""
        pause_s = _FIRST_LOOK_S
        try:
            async with asyncio.timeout(self.wait_s):
                while True:
                    if await self.embeddings.exists(region):
                        return
                    found = await self.regions.find(region.slide.paths, record.id)
                    if found is None:
                        raise _no_such_region()
                    _require_makable(found)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LAST_LOOK_S)
        except TimeoutError:
            raise RegionNotReady("The region is still being made; ask again shortly.", retry_after_s=_RETRY_S) from None


def _require_makable(record: RegionRecord) -> None:
    if record.error is not None:
        raise RegionFailed(f"The region could not be made ({record.error.code}): {record.error.detail}")


def _area_mm2(places: TilePlaces, slide: SlideRecord, chosen: NDArray[np.int64]) -> float | None:
    """Attached features and levels may not say the µm/px that the slide does."""
    area = places.area_mm2(chosen, slide.mpp)
    return None if area is None else round(area, 4)


def _thinning(model: ServedModel, tiles: int) -> tuple[SlideWarning, ...]:
    most = model.manifest.slide_stage.thinned_to(tiles, model.manifest.inputs)
    if most is None:
        return ()
    detail = f"The region has {tiles} tiles and the model takes {most}: evenly spaced ones are used, others not seen."
    return (SlideWarning(code="tiles_thinned", detail=detail),)


def _no_such_region() -> NotFound:
    return NotFound("This slide has no such region, or no longer; draw it again with POST /v1/slides/{id}/regions.")
