"""The state of a slide, and the Slide of the HTTP contract. Only a slide with an embedding is ready."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from encoders.errors import StoredFileDamaged
from server.embeddings.cache import EmbeddingCache
from server.encoding.jobs import EncodeJobs
from server.slides.catalogue import SlideCatalogue
from server.slides.public_slide import Slide, SlideEncoding, Status, describe, describe_encoding, describe_unreadable
from server.slides.slide_record import SlideRecord, UnreadableRecord


@dataclass(frozen=True)
class SlideStates:
    """Asks embeddings and queue about slides; `models` are the served ones, the default first."""

    embeddings: EmbeddingCache
    jobs: EncodeJobs
    slides: SlideCatalogue
    models: Sequence[str]

    async def status(self, record: SlideRecord) -> Status:
        """How the slide stands for the model that sees it: ready when the embedding is there; else what the record and
        the queue say."""
        if await self.embeddings.exists(record):
            return "ready"
        if record.error is not None:
            return "failed"
        return "encoding" if await self.jobs.is_running(record) else "queued"

    async def show(self, record: SlideRecord | UnreadableRecord) -> Slide:
        """The Slide of the HTTP contract."""
        if isinstance(record, UnreadableRecord):
            return describe_unreadable(record)
        default = self.slides.seen_by(record, "")
        found = await asyncio.gather(*(self._encoding(default, model) for model in self.models))
        encodings = [it for it in found if it is not None]
        return describe(default.model_copy(update={"tile_count": encodings[0].tile_count}), encodings)

    async def _encoding(self, default: SlideRecord, model: str) -> SlideEncoding | None:
        """How the slide stands for that model; None when nobody has asked for it."""
        record = self.slides.seen_by(default, model)
        status = await self.status(record)
        if status == "ready" and record.tile_count is None:
            with contextlib.suppress(StoredFileDamaged):
                return describe_encoding(await self._with_tile_count(record), model, status)
            status = await self.status(record)  # the cache has deleted it
        if not record.wanted and status != "ready":
            return None
        return describe_encoding(record, model, status)

    async def _with_tile_count(self, record: SlideRecord) -> SlideRecord:
        """A slide is ready as soon as its embedding is there: before the worker has written it down, and when a model
        or µm/px is chosen again that it was encoded with before. None stays None where slide tokens were given."""
        cached = await self.embeddings.find(record)
        tile_count = cached.embedding.tile_count if cached else 0
        return record.model_copy(update={"tile_count": tile_count or None})
