"""Queues encodes: new ones, those that the tenant asks for again, and those that were lost."""

from dataclasses import dataclass
from typing import NoReturn

from server.encoding.jobs import EncodeJobs
from server.errors import NotFound, SlideFailed, SlideNotReady
from server.flow.slide_states import SlideStates
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import ProgressLog
from server.slides.public_slide import Slide
from server.slides.slide_record import SlideRecord
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.storage.stored_parts import remove_parts
from server.telemetry.metrics import Metrics

_NOT_READY_RETRY_S = 5


@dataclass(frozen=True)
class QueueEncode:
    """Puts slides into the encode queue of the model that sees them, once each."""

    slides: SlideCatalogue
    jobs: EncodeJobs
    progress: ProgressLog
    usage: Usage
    store: SlideStore
    states: SlideStates
    metrics: Metrics

    async def enqueue(self, record: SlideRecord) -> bool:
        """Queue the slide's encode; False when it is queued or running already."""
        queued = await self.jobs.enqueue(record)
        if queued:
            self.metrics.encode_jobs.labels(record.model or self.states.models[0]).inc()
        return queued

    async def enqueue_anew(self, record: SlideRecord) -> None:
        """Queue an encode that the tenant asked for; one that waits and is only made urgent counts no second time."""
        waits = await self.jobs.find(record) is not None
        if await self.enqueue(record) and not waits:
            await self.usage.count_encoding(record.tenant)

    async def begin(self, record: SlideRecord) -> SlideRecord:
        """Queue the slide's first encode for a model that nobody has asked for yet, and note that it is wanted.

        Raises:
            QuotaExceeded: the tenant's encodings of today are used up.
            NotFound: the slide was deleted meanwhile.
        """
        await self.usage.require_encoding(record.tenant)
        changed = await self.slides.update(record, lambda stored: stored.model_copy(update={"wanted": True}))
        if changed is None:
            raise NotFound("The slide was deleted meanwhile.")
        await self.enqueue_anew(changed)
        return changed

    async def refuse_unencoded(self, record: SlideRecord, model: str) -> NoReturn:
        """The refusal of what needs a slide's embedding, which is not there; its encode is seen to.

        Raises:
            SlideFailed, SlideNotReady: always one of them, unless the encode cannot be queued.
        """
        if record.error is not None:
            raise SlideFailed(f"The slide could not be encoded ({record.error.code}): {record.error.detail}")
        if not record.wanted:
            await self.begin(record)
            raise SlideNotReady(
                f"The slide is now being encoded for {model}; ask again shortly.", retry_after_s=_NOT_READY_RETRY_S
            )
        await self.enqueue(record)  # changes nothing while it is queued; a lost job need not wait a minute
        raise SlideNotReady(
            "The slide is still being encoded; follow its events or ask again shortly.",
            retry_after_s=_NOT_READY_RETRY_S,
        )

    async def encode_again(self, before: SlideRecord, record: SlideRecord) -> Slide:
        """Queue the encode of a record that was changed, unless that embedding is there already."""
        if record.encoder_id != before.encoder_id:
            await self.jobs.cancel(before)
            await remove_parts(self.store, before.paths, before.encoder_id)
        if await self.states.status(record) != "ready":
            await self.progress.forget(record.tenant, record.id, record.model)
            await self.enqueue_anew(record)
        return await self.states.show(record)
