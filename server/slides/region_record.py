"""Regions of a slide as they are kept: what was drawn, and what is known of it."""

import re
from dataclasses import dataclass

from encoders.regions.outline import MAX_CORNERS, Outline
from server.slides.derived_record import DerivedPlace, DerivedRecord, DerivedShelf
from server.slides.slide_record import SlideRecord, SlideWarning
from server.storage.slide_store import SlidePaths, SlideStore

REGION_ID_PATTERN = re.compile(r"reg_[0-9a-f]{32}")


class RegionRecord(DerivedRecord):
    """`regions/<region id>.json`. `outline` has level-0 (x, y) of its corners; `tiles` and `area_mm2` are those of the
    encoding `encoder_id`, on which it was drawn."""

    outline: tuple[tuple[float, float], ...]
    tiles: int
    area_mm2: float | None
    warnings: tuple[SlideWarning, ...] = ()

    @property
    def drawn(self) -> Outline:
        """Its outline; raises UnusableRegion for what was never one."""
        return Outline.of(self.outline)


@dataclass(frozen=True)
class SlideRegion:
    """A region of a slide, as one model sees the slide: whose embedding is meant."""

    slide: SlideRecord
    region_id: str

    @property
    def name(self) -> str:
        """The region's id."""
        return self.region_id


class Regions(DerivedShelf[RegionRecord]):
    """The regions of all tenants; at most `most` of a slide."""

    def __init__(self, store: SlideStore, most: int) -> None:
        super().__init__(store, most, DerivedPlace("regions", REGION_ID_PATTERN, RegionRecord))

    async def find(self, paths: SlidePaths, name: str) -> RegionRecord | None:
        """The region, or None when the slide has none of this id."""
        record = await super().find(paths, name)
        return record if record is not None and 3 <= len(record.outline) <= MAX_CORNERS else None
