"""Thumbnails of stored slides: made once, kept in memory for a while, and never in the way of an upload."""

from collections import OrderedDict

from server.admission.turns import TenantTurns
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore
from server.uploads.slide_inspection import SlideInspector
from server.uploads.slide_source import local_source

# Some hundred pictures of 512 px, more than one page of a viewer shows.
_MEMORY_BYTES = 64 * 2**20
# Beside the looks at uploads, which have turns of their own.
_AT_ONCE = 2
_PER_TENANT = 1
# A browser's page of slides; it asks again for the others.
_MOST_WAITING = 32


class Thumbnails:
    """PNGs by tenant, slide and size; those used last stay, at most `memory_bytes` of them."""

    def __init__(self, store: SlideStore, inspector: SlideInspector, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._store = store
        self._inspector = inspector
        self._memory_bytes = memory_bytes
        self._turns = TenantTurns(_AT_ONCE, _PER_TENANT, _MOST_WAITING, "thumbnails")
        self._kept: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._kept_bytes = 0

    async def png(self, record: SlideRecord, max_px: int) -> bytes:
        """A PNG of the tissue, at most `max_px` wide and high.

        Raises:
            Overloaded: too many thumbnails of the tenant wait.
            FileNotFoundError: the slide was deleted.
            SlideError: it cannot be read.
        """
        key = (record.tenant, record.id, max_px)
        if (known := self._find(key)) is not None:
            return known
        async with self._turns.one(record.tenant):
            if (known := self._find(key)) is not None:  # made for another request while this one waited
                return known
            async with local_source(self._store, record.paths, record.entry) as source:
                png = await self._inspector.thumbnail_png(source.path, max_px, source.folder)
        self._keep(key, png)
        return png

    def forget(self, tenant: str, slide_id: str) -> None:
        """Drop what is kept of a slide."""
        for key in [key for key in self._kept if key[:2] == (tenant, slide_id)]:
            self._drop(key)

    def _find(self, key: tuple[str, str, int]) -> bytes | None:
        png = self._kept.get(key)
        if png is not None:
            self._kept.move_to_end(key)
        return png

    def _keep(self, key: tuple[str, str, int], png: bytes) -> None:
        self._drop(key)
        self._kept[key] = png
        self._kept_bytes += len(png)
        while self._kept_bytes > self._memory_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, str, int]) -> None:
        self._kept_bytes -= len(self._kept.pop(key, b""))
