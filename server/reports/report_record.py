"""Reports, kept beside their slide: drafts of a model's answers, numbered, never changed.

    tenants/<tenant>/slides/<slide id>/reports/{last.json, <6 digits>.json}

A number is given once: whoever has one reads that report or none, whatever was deleted since. They hold questions,
answers and what was said of the slide then, so whatever people typed.
"""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from server.errors import NotFound, QuotaExceeded, RecordUnreadable
from server.storage.slide_store import SlidePaths, SlideStore
from server.uploads.slide_metadata import NOTHING_SAID, SlideMetadata

MOST_REPORTS = 100
LAST_NUMBER = 999_999
_LAST = "last.json"

# The only one there is: what a model wrote and nobody has signed. Reading systems decide by it.
ReportStatus = Literal["preliminary"]


class ReportedDoubt(BaseModel):
    """What was doubtful about an answer: a stable code, and in words."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class ReportedChoice(BaseModel):
    """A choice of a closed question and its share of all choices, which is not calibrated."""

    model_config = ConfigDict(frozen=True)

    text: str
    probability: float


class ReportSection(BaseModel):
    """A question and its answer, whole. The conversation is where to go on, while it is kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    heading: str
    question: str
    answer: str
    choices: tuple[ReportedChoice, ...] = ()
    warnings: tuple[ReportedDoubt, ...] = ()
    conversation_id: str | None = None
    turn: int | None = None


class ReportedModel(BaseModel):
    """Who wrote it: `weights_digest` is the SHA-256 over the digests of all of the model's files, in lower-case hex."""

    model_config = ConfigDict(frozen=True)

    name: str
    weights_digest: str
    encoder_id: str
    notice: str


class ReportedSlide(BaseModel):
    """The slide as it was then."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    filename: str
    study_uid: str | None = None
    series_uid: str | None = None
    metadata: SlideMetadata = NOTHING_SAID


class ReportRecord(BaseModel):
    """A report."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format_version: int = 1
    id: str
    number: int
    status: ReportStatus = "preliminary"
    title: str
    created_at: AwareDatetime
    request_id: str | None = None
    slide: ReportedSlide
    model: ReportedModel
    sections: tuple[ReportSection, ...]


class _Last(BaseModel):
    number: int


class ReportShelf:
    """The reports of all tenants' slides. Whoever writes holds the slide's lock (`SlideCatalogue.lock`)."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def numbers(self, paths: SlidePaths) -> list[int]:
        """Of all that are kept, the newest first."""
        names = await self._store.objects(paths.reports)
        return sorted(
            (int(name[:-5]) for name in names if name[:-5].isdigit() and name.endswith(".json")), reverse=True
        )

    async def require(self, paths: SlidePaths, number: int) -> ReportRecord:
        """The report.

        Raises:
            NotFound: the slide has none of this number.
            RecordUnreadable: it is damaged.
        """
        content = await self._store.get(_key(paths, number))
        if content is None:
            raise NotFound("The slide has no report of this number.")
        try:
            record = ReportRecord.model_validate_json(content)
        except ValidationError:
            record = None
        if record is None or (record.number, record.slide.id) != (number, paths.slide_id):
            raise RecordUnreadable("The stored report cannot be read; delete it, and ask for a new one.")
        return record

    async def keep(self, paths: SlidePaths, record: ReportRecord) -> tuple[ReportRecord, int]:
        """Keep the report under the next number; with that number, and how many bytes were stored.

        Raises:
            QuotaExceeded: the slide has as many as it may.
        """
        kept = await self.numbers(paths)
        require_room(kept)
        numbered = record.model_copy(update={"number": max([await self._last(paths), *kept]) + 1})
        content = numbered.model_dump_json().encode()
        # Before the report: a number that is given and not used is none that is used twice.
        await self._store.put(_last_key(paths), _Last(number=numbered.number).model_dump_json().encode())
        await self._store.put(_key(paths, numbered.number), content)
        return numbered, len(content)

    async def remove(self, paths: SlidePaths, number: int) -> int:
        """Delete a report, readable or not; how many bytes that were, 0 for none of this number."""
        size_bytes = await self._store.size_bytes(_key(paths, number))
        if size_bytes is None or not await self._store.delete(_key(paths, number)):
            return 0
        return size_bytes

    async def _last(self, paths: SlidePaths) -> int:
        content = await self._store.get(_last_key(paths))
        try:
            return 0 if content is None else _Last.model_validate_json(content).number
        except ValidationError:  # then those that are kept say it
            return 0


def require_room(kept: list[int]) -> None:
    """Raises QuotaExceeded when a slide with these reports can have no more."""
    if len(kept) >= MOST_REPORTS:
        raise QuotaExceeded(f"The slide has {MOST_REPORTS} reports, which is the most; delete some.")


def _key(paths: SlidePaths, number: int) -> str:
    return f"{paths.reports}/{number:06d}.json"


def _last_key(paths: SlidePaths) -> str:
    return f"{paths.reports}/{_LAST}"
