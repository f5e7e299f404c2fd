"""What is said of a slide changes: its place in the hospital's books was not known at upload, or was wrong."""

from collections.abc import Callable
from dataclasses import dataclass

from server.errors import NotFound
from server.flow.slide_states import SlideStates
from server.slides.catalogue import SlideCatalogue
from server.slides.public_slide import Slide
from server.uploads.slide_metadata import SlideMetadata


@dataclass(frozen=True)
class ChangeMetadata:
    """Changes what is said of slides of all tenants."""

    slides: SlideCatalogue
    states: SlideStates

    async def change(self, tenant: str, slide_id: str, change: Callable[[SlideMetadata], SlideMetadata]) -> Slide:
        """The slide as it is then. The change is applied to what is stored at that moment, so that two at once are both
        kept.

        Raises:
            NotFound, RecordUnreadable: there is no such slide, or its record is of no use.
        """
        record = await self.slides.require(tenant, slide_id)
        changed = await self.slides.update(
            record, lambda stored: stored.model_copy(update={"metadata": change(stored.metadata)})
        )
        if changed is None:
            raise NotFound("The slide was deleted meanwhile.")
        return await self.states.show(changed)
