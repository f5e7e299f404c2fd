"""Follow an import until it is over."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from server.flow.pull_series import last_event
from server.slides.progress import Event, ProgressLog
from server.uploads.dicom.import_record import ImportRecord, ImportShelf

_LAST = frozenset({"done", "incomplete", "failed"})


@dataclass(frozen=True)
class FollowImport:
    """Follows imports of all tenants."""

    progress: ProgressLog
    imports: ImportShelf
    is_draining: Callable[[], bool]

    async def events(self, record: ImportRecord, after: str) -> AsyncGenerator[Event, None]:
        """Remembered and new events behind the id `after`; how it ended is taken from the record when they were lost
        with Redis."""
        async with aclosing(self.progress.follow(record.tenant, record.id, after)) as followed:
            async for event in followed:
                if event is not None:
                    yield event
                    if event.name in _LAST:
                        return
                    continue
                if self.is_draining():  # the client follows on from its last id at another server
                    return
                current = await self.imports.find(record.tenant, record.id)
                if current is None:
                    yield Event("failed", {"code": "not_found", "detail": "The import is forgotten; begin it anew."})
                    return
                if not current.is_open:
                    yield last_event(current)
                    return
