"""What is kept beside a slide and was made of its stored features: a JSON file for each, and the files that were made.

A slide keeps a bounded number of each kind. Beyond it those go that were not used for longest: who asks for one again
gets the same, made of the same features. Whether something is made is never stored, as with slides.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from server.slides.slide_record import SlideError, SlideRecord
from server.storage.slide_store import SlidePaths, SlideStore

log = structlog.get_logger(__name__)


class Derived(Protocol):
    """Something of a slide, as one model sees the slide, by name."""

    @property
    def slide(self) -> SlideRecord:
        """The slide."""

    @property
    def name(self) -> str:
        """Its name among those of the slide."""


class DerivedRecord(BaseModel):
    """`<name>.json`: made on the encoding `encoder_id`; `error` says why it cannot be."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    slide_id: str
    encoder_id: str
    error: SlideError | None = None
    created_at: datetime
    used_at: datetime


Record = TypeVar("Record", bound=DerivedRecord)


@dataclass(frozen=True)
class DerivedPlace(Generic[Record]):
    """Where one kind lies: in which folder of a slide, what it is called there, what its records are."""

    folder: str
    pattern: re.Pattern[str]
    record: type[Record]


class DerivedShelf(Generic[Record]):
    """Those of one kind of all tenants' slides; at most `most` of a slide. Whoever writes holds the slide's lock
    (`SlideCatalogue.lock`): what comes while a slide is deleted would stay for ever."""

    def __init__(self, store: SlideStore, most: int, place: DerivedPlace[Record]) -> None:
        self._store = store
        self._place = place
        self.most = most

    async def find(self, paths: SlidePaths, name: str) -> Record | None:
        """The record, or None when the slide has none of this name; a damaged one is none."""
        if not self._place.pattern.fullmatch(name):
            return None
        content = await self._store.get(self._key(paths, name))
        if content is None:
            return None
        try:
            record = self._place.record.model_validate_json(content)
        except ValidationError:
            record = None
        if record is None or (record.id, record.slide_id) != (name, paths.slide_id):
            log.warning("derived_record_unreadable", kind=self._place.folder, slide=paths.slide_id[:12])
            return None
        return record

    async def keep(self, paths: SlidePaths, record: Record) -> int:
        """Write the record; how many bytes more are stored than before."""
        key, content = self._key(paths, record.id), record.model_dump_json().encode()
        before = await self._store.size_bytes(key)
        await self._store.put(key, content)
        return len(content) - (before or 0)

    async def change(self, paths: SlidePaths, name: str, **changes: SlideError | datetime | None) -> bool:
        """Change what is known of one; False, and nothing is written, when there is none any more."""
        record = await self.find(paths, name)
        if record is None:
            return False
        await self.keep(paths, record.model_copy(update=changes))
        return True

    async def make_room(self, paths: SlidePaths, newest: str) -> int:
        """Remove what was not used for longest, until there is room; never `newest`. How many bytes were freed."""
        names = await self._store.objects(self._folder(paths))
        kept = {name.partition(".")[0] for name in names} - {newest}
        if len(kept) < self.most:
            return 0
        found = await asyncio.gather(*(self.find(paths, name) for name in kept))
        used_at = {record.id: record.used_at.timestamp() for record in found if record is not None}
        # What was made is of no use to anyone without a record.
        oldest = sorted(kept, key=lambda name: used_at.get(name, 0.0))[: len(kept) - self.most + 1]
        return sum([await self._remove(paths, name) for name in oldest])

    async def _remove(self, paths: SlidePaths, name: str) -> int:
        """The record first: a worker that has it in hand publishes nothing then. What it published before is found
        behind that."""
        freed = await self._deleted(self._key(paths, name))
        for file in await self._store.objects(self._folder(paths)):
            if file.partition(".")[0] == name:
                freed += await self._deleted(f"{self._folder(paths)}/{file}")
        return freed

    async def _deleted(self, key: str) -> int:
        size_bytes = await self._store.size_bytes(key) or 0
        with contextlib.suppress(FileNotFoundError):
            await self._store.delete(key)
        return size_bytes

    def _folder(self, paths: SlidePaths) -> str:
        return f"{paths.folder}/{self._place.folder}"

    def _key(self, paths: SlidePaths, name: str) -> str:
        return f"{self._folder(paths)}/{name}.json"
