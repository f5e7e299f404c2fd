"""What is left out of a slide, or of a region of it, as evidence for answers: kept like a region, by name."""

import re

from encoders.regions.outline import Outline
from server.slides.derived_record import DerivedPlace, DerivedRecord, DerivedShelf
from server.storage.slide_store import SlideStore

_ID_PATTERN = re.compile(r"evi_[0-9a-f]{32}")


class EvidenceRecord(DerivedRecord):
    """`evidence/<evidence id>.json`: of which outline, None is the whole slide, of which cell of it, None is all of it,
    and how many files of rows it has."""

    outline: tuple[tuple[float, float], ...] | None
    parent: str | None
    parts: int

    @property
    def drawn(self) -> Outline | None:
        """The region's outline."""
        return None if self.outline is None else Outline.of(self.outline)


class EvidenceShelf(DerivedShelf[EvidenceRecord]):
    """The evidence of all tenants; at most `most` sets of a slide."""

    def __init__(self, store: SlideStore, most: int) -> None:
        super().__init__(store, most, DerivedPlace("evidence", _ID_PATTERN, EvidenceRecord))
