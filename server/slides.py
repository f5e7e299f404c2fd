"""A slide's record and the catalogue of a tenant's slides.

The record (`slide.json`) holds what only the upload knew and what the last encode found out. Whether a slide is
ready is never stored: it is ready when its embedding is there, so the two cannot disagree.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.asyncio.lock import Lock

import encoders.types
from encoders.errors import StoredFileDamaged
from encoders.types import MppSource, SlideFacts
from server.errors import NotFound
from server.slide_store import SLIDE_ID_PATTERN, SlidePaths, SlideStore, slides_folder

Status = Literal["queued", "encoding", "ready", "failed"]
Priority = Literal["routine", "urgent"]
# Names the served encoders for an override of µm/px and the digest of attached features.
EncoderIds = Callable[[float | None, str | None], str]
# The `vendor` of a slide that was uploaded as precomputed features.
FEATURES_VENDOR = "features"
# A lock whose holder died is free after so long; a living holder renews it, however slow its store is.
_LOCK_S = 15.0


class SlideError(BaseModel):
    """Why a slide failed: a stable code and one sentence that says what to do."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class SlideWarning(BaseModel):
    """What is doubtful about a slide that is used all the same: a stable code, and what was doubted and done."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class SlideRecord(BaseModel):
    """`slide.json`. `generation` tells two uploads of the same content apart, with a delete in between;
    `features_sha256` names attached features that are encoded instead of the pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    tenant: str
    generation: str
    filename: str
    size_bytes: int
    created_at: datetime
    vendor: str | None = None
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    objective_power: float | None = None
    mpp_override: float | None = None
    features_sha256: str | None = None
    entry: str | None = None
    priority: Priority = "routine"
    encoder_id: str
    tile_count: int | None = None
    error: SlideError | None = None
    warnings: tuple[SlideWarning, ...] = ()

    @property
    def paths(self) -> SlidePaths:
        """Where its objects are."""
        return SlidePaths(self.tenant, self.id)

    @property
    def has_pixels(self) -> bool:
        """False for a slide that was uploaded as precomputed features."""
        return self.vendor != FEATURES_VENDOR

    def with_facts(self, facts: SlideFacts) -> "SlideRecord":
        """The record with what the file says of itself; an override of µm/px stays visible as `mpp`."""
        return self.model_copy(
            update={
                "vendor": facts.vendor,
                "width": facts.width,
                "height": facts.height,
                "mpp": self.mpp_override or facts.mpp,
                "objective_power": facts.objective_power,
                "warnings": recorded(facts.warnings),
            }
        )


class Slide(BaseModel):
    """The Slide of the HTTP contract. Sizes in bytes, width and height in level-0 pixels, mpp in µm/px."""

    id: str
    object: Literal["slide"] = "slide"
    status: Status
    filename: str
    size_bytes: int
    vendor: str | None
    width: int | None
    height: int | None
    mpp: float | None
    mpp_source: MppSource | None = Field(
        description="Who says the µm/px: the file (`property`), the caller (`override`), or given `features`."
    )
    objective_power: float | None
    tile_count: int | None
    encoder_id: str | None
    error: SlideError | None
    warnings: list[SlideWarning] = Field(
        description="What is doubtful about the slide, and what was done; empty when nothing is."
    )
    created_at: datetime = Field(description="RFC 3339")


def recorded(warnings: Iterable[encoders.types.SlideWarning]) -> tuple[SlideWarning, ...]:
    """What a reader or a plan doubts, as the record keeps it."""
    return tuple(SlideWarning(code=it.code, detail=it.detail) for it in warnings)


def describe(record: SlideRecord, status: Status) -> Slide:
    """The public view of a record."""
    shown = record.model_dump(exclude={"tenant", "generation", "mpp_override", "features_sha256", "priority", "entry"})
    return Slide(**shown, status=status, mpp_source=_mpp_source(record))


def _mpp_source(record: SlideRecord) -> MppSource | None:
    if record.mpp is None:
        return None
    if not record.has_pixels:
        return "features"
    return "property" if record.mpp_override is None else "override"


@dataclass(frozen=True)
class RecordPage:
    """Some of a tenant's records in order of id; `next_cursor` is None at the end."""

    records: list[SlideRecord]
    next_cursor: str | None


def now() -> datetime:
    """The current time in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class SlideCatalogue:
    """Records of all tenants. Updates are serialised by a lock in Redis: API and worker both write."""

    def __init__(self, store: SlideStore, redis: Redis, encoder_id: EncoderIds) -> None:
        self._store = store
        self._redis = redis
        self._encoder_id = encoder_id

    def new_record(self, tenant: str, slide_id: str, filename: str, size_bytes: int) -> SlideRecord:
        """The record of a slide that was just received."""
        return SlideRecord(
            id=slide_id,
            tenant=tenant,
            generation=secrets.token_hex(8),
            filename=filename,
            size_bytes=size_bytes,
            created_at=now(),
            encoder_id=self._encoder_id(None, None),
        )

    def with_override(self, record: SlideRecord, mpp: float | None) -> SlideRecord:
        """The record with another µm/px, under the encoder id that goes with it."""
        override = {"mpp_override": mpp, "mpp": mpp or record.mpp}
        return self._under_served_encoder(record.model_copy(update=override))

    def with_features(self, record: SlideRecord, features_sha256: str | None) -> SlideRecord:
        """The record with attached features, or with None from its pixels again, under the encoder id for that."""
        return self._under_served_encoder(record.model_copy(update={"features_sha256": features_sha256}))

    async def find(self, tenant: str, slide_id: str) -> SlideRecord | None:
        """The record, or None when this tenant has no such slide.

        Raises:
            StoredFileDamaged: what is stored is no record.
        """
        if not SLIDE_ID_PATTERN.fullmatch(slide_id):
            return None
        content = await self._store.get(SlidePaths(tenant, slide_id).record)
        return None if content is None else self._under_served_encoder(_parsed(content))

    async def require(self, tenant: str, slide_id: str) -> SlideRecord:
        """The record.

        Raises:
            NotFound: this tenant has no such slide.
        """
        record = await self.find(tenant, slide_id)
        if record is None:
            raise NotFound("There is no slide with this id; upload it to POST /v1/slides first.")
        return record

    async def create(self, record: SlideRecord) -> bool:
        """Store a new record; False when the slide was there already."""
        return await self._store.create(record.paths.record, record.model_dump_json().encode())

    @asynccontextmanager
    async def lock(self, tenant: str, slide_id: str) -> AsyncIterator[None]:
        """Held while the slide's record comes, changes or goes."""
        async with self._redis.lock(f"eyepiece:{{{tenant}}}:record:{slide_id}", timeout=_LOCK_S) as lock:
            renewing = asyncio.create_task(_renew(lock))
            try:
                yield
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)

    async def update(self, record: SlideRecord, change: Callable[[SlideRecord], SlideRecord]) -> SlideRecord | None:
        """Apply `change` to the stored record; None when that upload of the slide is gone meanwhile."""
        async with self.lock(record.tenant, record.id):
            stored = await self.find(record.tenant, record.id)
            if stored is None or stored.generation != record.generation:
                return None
            changed = change(stored)
            if changed != stored:
                await self._store.put(changed.paths.record, changed.model_dump_json().encode())
            return changed

    async def remove_orphan(self, tenant: str, slide_id: str) -> bool:
        """Remove what is left of a slide without a record; False, and nothing happens, when there is a record."""
        async with self.lock(tenant, slide_id):
            if await self.find(tenant, slide_id) is not None:
                return False
            await self._store.delete_folder(SlidePaths(tenant, slide_id).folder)
            return True

    async def page(self, tenant: str, *, after: str, limit: int) -> RecordPage:
        """Up to `limit` records with ids above `after`."""
        ids = [name for name in await self.ids(tenant) if name > after]
        records: list[SlideRecord] = []
        for seen, slide_id in enumerate(ids, 1):
            record = await self.find(tenant, slide_id)
            if record is not None:  # else its upload or its deletion is under way
                records.append(record)
            if len(records) == limit:
                return RecordPage(records, slide_id if seen < len(ids) else None)
        return RecordPage(records, None)

    async def ids(self, tenant: str) -> list[str]:
        """The ids of all slide folders of a tenant, with a record or without."""
        return await self._store.folders(slides_folder(tenant))

    def _under_served_encoder(self, record: SlideRecord) -> SlideRecord:
        """What another model found out about the slide does not hold for the one that is served now."""
        # Features were made at some resolution already; what was said of the pixels' does not change them.
        override = record.mpp_override if record.features_sha256 is None else None
        served = self._encoder_id(override, record.features_sha256)
        if record.encoder_id == served:
            return record
        return record.model_copy(update={"encoder_id": served, "error": None, "tile_count": None})

    async def tenants(self) -> list[str]:
        """Every tenant that has a slide."""
        return await self._store.folders("tenants")


def _parsed(content: bytes) -> SlideRecord:
    try:
        return SlideRecord.model_validate_json(content)
    except ValidationError as error:
        raise StoredFileDamaged("The stored record of this slide cannot be read; the operator must mend it.") from error


async def _renew(lock: Lock) -> None:
    while True:
        await asyncio.sleep(_LOCK_S / 3)
        await lock.reacquire()
