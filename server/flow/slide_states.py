"""The state of a slide, and the Slide of the HTTP contract. Only a slide with an embedding is ready."""

import contextlib
from dataclasses import dataclass

from encoders.errors import StoredFileDamaged
from server.embeddings.cache import EmbeddingCache
from server.encoding.jobs import EncodeJobs
from server.slides.public_slide import Slide, Status, describe, describe_unreadable
from server.slides.slide_record import SlideRecord, UnreadableRecord


@dataclass(frozen=True)
class SlideStates:
    """Asks embeddings and queue about slides."""

    embeddings: EmbeddingCache
    jobs: EncodeJobs

    async def status(self, record: SlideRecord) -> Status:
        """Ready when the embedding is there; else what the record and the queue say."""
        if await self.embeddings.exists(record):
            return "ready"
        if record.error is not None:
            return "failed"
        return "encoding" if await self.jobs.is_running(record) else "queued"

    async def show(self, record: SlideRecord | UnreadableRecord) -> Slide:
        """The Slide of the HTTP contract."""
        if isinstance(record, UnreadableRecord):
            return describe_unreadable(record)
        status = await self.status(record)
        if status == "ready" and record.tile_count is None:
            with contextlib.suppress(StoredFileDamaged):
                return describe(await self._with_tile_count(record), status)
            status = await self.status(record)  # the cache has deleted it
        return describe(record, status)

    async def _with_tile_count(self, record: SlideRecord) -> SlideRecord:
        """A slide is ready as soon as its embedding is there: before the worker has written it down, and when a model
        or µm/px is chosen again that it was encoded with before. None stays None where slide tokens were given."""
        cached = await self.embeddings.find(record)
        tile_count = cached.embedding.tile_count if cached else 0
        return record.model_copy(update={"tile_count": tile_count or None})
