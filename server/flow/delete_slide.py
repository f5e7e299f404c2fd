"""All of a slide, gone: source, features, embeddings, regions, cache, jobs, events, conversations and feedback."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.asking.conversations import Conversations
from server.embeddings.cache import EmbeddingCache
from server.encoding.derived_jobs import DerivedJobs
from server.encoding.jobs import EncodeJobs
from server.slides.catalogue import SlideCatalogue
from server.slides.feedback import FeedbackShelf
from server.slides.open_slides import OpenSlides
from server.slides.progress import ProgressLog
from server.slides.remembered_replies import RememberedReplies
from server.slides.series_index import SeriesIndex
from server.slides.slide_index import entry_of
from server.slides.slide_record import SlideRecord, UnreadableRecord
from server.slides.thumbnails import Thumbnails
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore


@dataclass(frozen=True)
class ForgetSlide:
    """Drops what memory and Redis hold of a slide that is gone from the store."""

    open_slides: OpenSlides
    thumbnails: Thumbnails
    embeddings: EmbeddingCache
    conversations: Conversations
    replies: RememberedReplies
    progress: ProgressLog
    other_models: Sequence[str] = ()

    async def forget(self, tenant: str, slide_id: str) -> None:
        """The slide's reader, pictures, embeddings, conversations and events."""
        self.open_slides.forget(tenant, slide_id)
        self.thumbnails.forget(tenant, slide_id)
        await self.embeddings.forget(tenant, slide_id)
        await self.conversations.forget_slide(tenant, slide_id)
        await self.replies.forget_slide(tenant, slide_id)
        for model in ("", *self.other_models):
            await self.progress.forget(tenant, slide_id, model)


@dataclass(frozen=True)
class DeleteSlide:
    """Deletes slides of all tenants."""

    store: SlideStore
    slides: SlideCatalogue
    series: SeriesIndex
    jobs: EncodeJobs
    derived_jobs: Sequence[DerivedJobs]
    usage: Usage
    feedback: FeedbackShelf
    forgetting: ForgetSlide

    async def delete(self, record: SlideRecord | UnreadableRecord) -> None:
        """The record goes first: from then on the slide does not exist, and a worker that still runs publishes nothing.
        The lock keeps an upload of the same slide out, and asks Redis before anything is gone. A deletion that is
        killed is ended by the reconciler, which finds a pending slide without a record."""
        async with self.slides.lock(record.tenant, record.id):
            await self.slides.index.add("pending", record)
            await self.store.delete(record.paths.record)
            if isinstance(record, SlideRecord):  # else nobody knows its job's name; it ends when it finds no record
                for seen in self.slides.wanted_by(record):
                    await self.jobs.cancel(seen)
                await self.series.forget(record)
            for jobs in self.derived_jobs:
                await jobs.cancel(record.tenant, record.id)
            size_bytes = await self.store.stored_bytes(record.paths.folder)
            await self.feedback.remove_slide(record.tenant, record.id)
            await self.store.delete_folder(record.paths.folder)
            await self.usage.give_room_back(record.tenant, size_bytes)
            await self.forgetting.forget(record.tenant, record.id)
            said = record.metadata.values if isinstance(record, SlideRecord) else ()
            await self.slides.withdraw(record.tenant, entry_of(record), said)
