"""Regions of a slide as they are kept: what was drawn, and what is known of it. One JSON file for each, beside its
embedding; whether a region is ready is never stored, as with slides.

A slide keeps a bounded number of them. Beyond it those go that were not used for longest: who draws one again gets the
same region, made from the same features in a moment.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from encoders.regions.outline import MAX_CORNERS, Outline
from server.slides.slide_record import SlideError, SlideRecord, SlideWarning
from server.storage.slide_store import SlidePaths, SlideStore

log = structlog.get_logger(__name__)
REGION_ID_PATTERN = re.compile(r"reg_[0-9a-f]{32}")


class RegionRecord(BaseModel):
    """`regions/<region id>.json`. `outline` has level-0 (x, y) of its corners; `tiles` and `area_mm2` are those of the
    encoding `encoder_id`, on which it was drawn."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    slide_id: str
    encoder_id: str
    outline: tuple[tuple[float, float], ...]
    tiles: int
    area_mm2: float | None
    warnings: tuple[SlideWarning, ...] = ()
    error: SlideError | None = None
    created_at: datetime
    used_at: datetime

    @property
    def drawn(self) -> Outline:
        """Its outline; raises UnusableRegion for what was never one."""
        return Outline.of(self.outline)


@dataclass(frozen=True)
class SlideRegion:
    """A region of a slide, as one model sees the slide: whose embedding is meant."""

    slide: SlideRecord
    region_id: str


class Regions:
    """The regions of all tenants; at most `most` of a slide. Whoever writes holds the slide's lock
    (`SlideCatalogue.lock`): what comes while a slide is deleted would stay for ever."""

    def __init__(self, store: SlideStore, most: int) -> None:
        self._store = store
        self.most = most

    async def find(self, paths: SlidePaths, region_id: str) -> RegionRecord | None:
        """The region, or None when the slide has none of this id; one whose record is damaged is none."""
        if not REGION_ID_PATTERN.fullmatch(region_id):
            return None
        content = await self._store.get(paths.region(region_id))
        if content is None:
            return None
        try:
            record = RegionRecord.model_validate_json(content)
        except ValidationError:
            record = None
        if record is None or (record.id, record.slide_id) != (region_id, paths.slide_id):
            log.warning("region_unreadable", slide=paths.slide_id[:12])
            return None
        return record if 3 <= len(record.outline) <= MAX_CORNERS else None

    async def keep(self, paths: SlidePaths, record: RegionRecord) -> int:
        """Write the record; how many bytes more are stored than before."""
        content = record.model_dump_json().encode()
        before = await self._store.size_bytes(paths.region(record.id))
        await self._store.put(paths.region(record.id), content)
        return len(content) - (before or 0)

    async def change(self, paths: SlidePaths, region_id: str, **changes: SlideError | datetime | None) -> bool:
        """Change what is known of a region; False, and nothing is written, when there is none any more."""
        record = await self.find(paths, region_id)
        if record is None:
            return False
        await self.keep(paths, record.model_copy(update=changes))
        return True

    async def make_room(self, paths: SlidePaths, newest: str) -> int:
        """Remove what was not used for longest, until there is room; never `newest`. How many bytes were freed."""
        names = await self._store.objects(paths.regions)
        ids = {name.partition(".")[0] for name in names} - {newest}
        if len(ids) < self.most:
            return 0
        found = await asyncio.gather(*(self.find(paths, region_id) for region_id in ids))
        used_at = {record.id: record.used_at.timestamp() for record in found if record is not None}
        # An embedding without a record is of no use to anyone.
        oldest = sorted(ids, key=lambda region_id: used_at.get(region_id, 0.0))
        return sum([await self._remove(paths, it) for it in oldest[: len(ids) - self.most + 1]])

    async def _remove(self, paths: SlidePaths, region_id: str) -> int:
        """The record first: a worker that has the region in hand publishes nothing then."""
        freed = 0
        for key in (f"{paths.regions}/{region_id}.json", f"{paths.regions}/{region_id}.safetensors"):
            freed += await self._store.size_bytes(key) or 0
            with contextlib.suppress(FileNotFoundError):
                await self._store.delete(key)
        return freed
