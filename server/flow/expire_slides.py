"""A tenant's slides that were uploaded too long ago go, as if each was deleted, and it is noted what went."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from server.flow.delete_slide import DeleteSlide
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_index import entry_at, slide_id_of
from server.slides.slide_record import SlideRecord, UnreadableRecord
from server.storage.slide_store import SlideStore

_ENTRIES_AT_ONCE = 100
# Around the deletion of a tenant's slide; it is told in numbers what was erased. Where it does not let the block begin,
# nothing is deleted.
Noting = Callable[[str, str], AbstractAsyncContextManager[dict[str, int]]]


@dataclass(frozen=True)
class ExpireSlides:
    """Ends the time that slides are kept for, of all tenants."""

    store: SlideStore
    slides: SlideCatalogue
    deleting: DeleteSlide

    async def expire(self, tenant: str, before: datetime, noting: Noting) -> int:
        """Delete the slides that were uploaded before that moment, each in a block of `noting`; how many. It costs what
        is deleted: the index is read from that moment on.

        Raises:
            EyepieceError: of `noting`, or of the store; what is left goes with the next round.
        """
        expired = 0
        async for record in self.due(tenant, before):
            async with noting(tenant, record.id) as erased:
                erased["bytes"] = await self.bytes_of(record)
                await self.deleting.delete(record)
            expired += 1
        return expired

    async def due(self, tenant: str, before: datetime) -> AsyncIterator[SlideRecord | UnreadableRecord]:
        """The slides that were uploaded before that moment, the newest of them first."""
        position = entry_at(before, "f" * 64)
        while entries := await self.slides.index.entries("all", tenant, position, _ENTRIES_AT_ONCE):
            position = entries[-1]
            for entry in entries:
                record = await self.slides.look(tenant, slide_id_of(entry))
                # The entry may be of an earlier upload of the same slide.
                if record is not None and record.created_at < before:
                    yield record

    async def bytes_of(self, record: SlideRecord | UnreadableRecord) -> int:
        """What a slide has stored, with all that was made of it."""
        return await self.store.stored_bytes(record.paths.folder)
