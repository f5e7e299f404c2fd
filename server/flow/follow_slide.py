"""Follow a slide until it is ready or has failed."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from server.errors import NotFound
from server.flow.slide_states import SlideStates
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import Event, ProgressLog
from server.slides.slide_record import SlideRecord


@dataclass(frozen=True)
class FollowSlide:
    """Follows slides of all tenants."""

    progress: ProgressLog
    slides: SlideCatalogue
    states: SlideStates
    is_draining: Callable[[], bool]

    async def require_begun(self, record: SlideRecord) -> None:
        """Refuse to follow what would never end.

        Raises:
            NotFound: nobody has asked for the slide's encode by the model that sees the record.
        """
        if not record.wanted and await self.states.status(record) != "ready":
            raise NotFound(
                f"The slide was not encoded for {record.model}; begin with POST /v1/slides/{{id}}/encode and "
                f'{{"encoder": "{record.model}"}}.'
            )

    async def events(self, record: SlideRecord, after: str) -> AsyncGenerator[Event, None]:
        """Remembered and new events behind the id `after`; the outcome is taken from the record when they were lost
        with Redis."""
        async with aclosing(self.progress.follow(record.tenant, record.id, after, record.model)) as followed:
            async for event in followed:
                if event is not None:
                    yield event
                    if event.is_last:
                        return
                    continue
                if self.is_draining():  # the client follows on from its last id at another server
                    return
                outcome = await self._outcome(record)
                if outcome is not None:
                    yield outcome
                    return

    async def _outcome(self, record: SlideRecord) -> Event | None:
        """The last event of a slide that is through, or gone."""
        current = await self.slides.find(record.tenant, record.id, record.model)
        if current is None:
            return Event("failed", {"code": "not_found", "detail": "The slide was deleted."})
        status = await self.states.status(current)
        if status == "ready":
            return Event("ready", {})
        if status == "failed" and current.error is not None:
            return Event("failed", current.error.model_dump())
        return None
