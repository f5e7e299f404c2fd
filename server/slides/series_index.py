"""Which slide a DICOM series is: `dicom:<series uid>` names a slide wherever its id does.

    tenants/<tenant>/series/<sha256 of the series uid>    the slide's id

The uid is in no key: it leads to a patient in whoever's archive knows it.
"""

import asyncio
import hashlib

from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SLIDE_ID_PATTERN, SlideStore, series_folder

SERIES_PREFIX = "dicom:"
_PAGE = 1_000
# Of the store, for one search.
_READS_AT_ONCE = 16


class SeriesIndex:
    """Of all tenants. An entry may be older than what it leads to: the slide's record is the truth."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def note(self, record: SlideRecord) -> None:
        """The slide answers to its series from now on, if it is of one; one that did before does no more."""
        if record.series_uid is not None:
            await self._store.put(_key(record.tenant, record.series_uid), record.id.encode())

    async def slide_of(self, tenant: str, series: str) -> str | None:
        """The id of the series' slide, which may be deleted already; None when there was none."""
        content = await self._store.get(_key(tenant, series))
        slide_id = "" if content is None else content.decode(errors="replace")
        return slide_id if SLIDE_ID_PATTERN.fullmatch(slide_id) else None

    async def slides(self, tenant: str) -> list[str]:
        """The ids of all slides that are series, as of `slide_of`."""
        found: list[str] = []
        after = ""
        while keys := await self._store.keys_after(series_folder(tenant), after, _PAGE):
            turns = asyncio.Semaphore(_READS_AT_ONCE)
            found += [it for it in await asyncio.gather(*[self._read(tenant, key, turns) for key in keys]) if it]
            after = keys[-1]
        return found

    async def _read(self, tenant: str, key: str, turns: asyncio.Semaphore) -> str:
        async with turns:
            content = await self._store.get(f"{series_folder(tenant)}/{key}")
        slide_id = "" if content is None else content.decode(errors="replace")
        return slide_id if SLIDE_ID_PATTERN.fullmatch(slide_id) else ""

    async def forget(self, record: SlideRecord) -> None:
        """The slide is gone."""
        if record.series_uid is not None and await self.slide_of(record.tenant, record.series_uid) == record.id:
            await self._store.discard(_key(record.tenant, record.series_uid))


def _key(tenant: str, series: str) -> str:
    return f"{series_folder(tenant)}/{hashlib.sha256(series.encode(errors='replace')).hexdigest()}"
