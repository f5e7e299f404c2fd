"""One region job: the region's embedding is made and published."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from prometheus_client import Counter

from encoders.caller import Caller
from encoders.embedding_file import to_bytes
from encoders.types import MppSource, SlideEmbedding
from server.encoding.derived_job import DerivedJob, StoredFile
from server.encoding.derived_jobs import DerivedKind
from server.slides.region_record import RegionRecord, SlideRegion
from server.slides.slide_record import SlideRecord
from server.to_the_end import to_the_end

MakeRegion = Callable[[RegionRecord, StoredFile, Caller], SlideEmbedding]


@dataclass(frozen=True)
class RegionJob(DerivedJob[RegionRecord, MakeRegion]):
    """Makes regions."""

    kind: ClassVar[DerivedKind] = "region"

    @property
    def counter(self) -> Counter:
        """Of regions."""
        return self.metrics.regions

    async def is_made(self, slide: SlideRecord, record: RegionRecord) -> bool:
        """Whether there is an embedding."""
        return await self.embeddings.exists(SlideRegion(slide, record.id))

    async def make(self, slide: SlideRecord, record: RegionRecord, features: StoredFile) -> str:
        """One embedding."""
        make = self.makes[slide.model]
        embedding = await self.in_thread(lambda caller: make(record, features, caller))
        if slide.has_pixels and slide.features_sha256 is None:  # a file of levels does not say it
            source: MppSource = "property" if slide.mpp_override is None else "override"
            embedding = replace(embedding, mpp_source=source)
        # Not broken off half-way by a worker that leaves: what is published of a slide that is gone has to go too.
        return await to_the_end(self._publish(SlideRegion(slide, record.id), to_bytes(embedding)))

    async def _publish(self, region: SlideRegion, content: bytes) -> str:
        if await self.embeddings.publish(region, content):
            await self.count_stored(region.slide, len(content))
        if await self.is_gone(region.slide):
            return "deleted"
        if await self.records.find(region.slide.paths, region.region_id) is None:
            await self.embeddings.remove(region)
            return "dropped"
        return "ready"
