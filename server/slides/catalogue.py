"""A slide's record and the catalogue of a tenant's slides.

The record (`slide.json`) holds what only the upload knew and what the last encode found out. Whether a slide is
ready is never stored: it is ready when its embedding is there, so the two cannot disagree.

A record that cannot be read, or that a newer release wrote, stands alone (docs/decisions/0017): it is listed with what
is known, can be deleted, and a damaged one is replaced by the next upload of the slide. Fields that a newer release
adds are kept when a record is rewritten; one that gives a field another meaning writes a higher `format_version`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.asyncio.lock import Lock

import encoders.types
from encoders.types import MppSource, SlideFacts, WarningCode
from server.errors import NotFound, RecordNewer, RecordUnreadable
from server.slides.slide_index import IndexState, Shelf, SlideIndex, SlideNames, entry_of
from server.storage.slide_store import SLIDE_ID_PATTERN, SlidePaths, SlideStore, slides_folder

Status = Literal["queued", "encoding", "ready", "failed"]
Priority = Literal["routine", "urgent"]
# Names the served encoders for an override of µm/px and the digest of attached features.
EncoderIds = Callable[[float | None, str | None], str]
# The `vendor` of a slide that was uploaded as precomputed features.
FEATURES_VENDOR = "features"
_FORMAT_VERSION = 1
# The code of warnings that go when the features do.
FEATURES_DOUBTED: WarningCode = "features_doubted"
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

    model_config = ConfigDict(frozen=True, extra="allow")

    # Absent in the file while it is 1, so that releases from before there was one read it too.
    format_version: int = _FORMAT_VERSION
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


@dataclass(frozen=True)
class UnreadableRecord:
    """A slide whose record cannot be used, with what is known of it; `replaceable` when no release can use it."""

    tenant: str
    id: str
    filename: str
    size_bytes: int
    created_at: datetime
    error: SlideError
    replaceable: bool

    @property
    def paths(self) -> SlidePaths:
        """Where its objects are."""
        return SlidePaths(self.tenant, self.id)


class Slide(BaseModel):
    """A slide: what it says of itself, and how its encoding stands."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="SHA-256 of the slide's bytes, in lower-case hex.", examples=["5e" * 32])
    object: Literal["slide"] = "slide"
    status: Status = Field(
        description="`queued`, `encoding`, then `ready` (questions can be asked) or `failed` (see `error`)."
    )
    filename: str = Field(description="File name at upload.", examples=["biopsy.svs"])
    size_bytes: int = Field(description="Total size of its files.", examples=[734003200])
    vendor: str | None = Field(
        description="The format as OpenSlide calls it, or `features` for precomputed features.", examples=["aperio"]
    )
    width: int | None = Field(description="Pixels of level 0.", examples=[98304])
    height: int | None = Field(description="Pixels of level 0.", examples=[65536])
    mpp: float | None = Field(description="Resolution of level 0, in µm per pixel.", examples=[0.25])
    mpp_source: MppSource | None = Field(
        description="Source of the µm/px: the file (`property`), the caller (`override`) or attached `features`."
    )
    objective_power: float | None = Field(description="Magnification stated by the scanner.", examples=[40])
    tile_count: int | None = Field(
        description="Number of encoded tiles; null until then, and for slides without tiles."
    )
    encoder_id: str | None = Field(description="Identifies everything that the slide's embedding depends on.")
    error: SlideError | None = Field(description="Why the slide failed; null unless it did.")
    warnings: list[SlideWarning] = Field(
        description="Doubts about the slide and what was done about them; empty when there are none."
    )
    created_at: datetime = Field(description="When it was uploaded (RFC 3339).")


def recorded(warnings: Iterable[encoders.types.SlideWarning]) -> tuple[SlideWarning, ...]:
    """What a reader or a plan doubts, as the record keeps it."""
    return tuple(SlideWarning(code=it.code, detail=it.detail) for it in warnings)


def describe(record: SlideRecord, status: Status) -> Slide:
    """The public view of a record."""
    shown = record.model_dump(include=set(Slide.model_fields))
    return Slide(**shown, status=status, mpp_source=_mpp_source(record))


def describe_unreadable(record: UnreadableRecord) -> Slide:
    """The public view of a slide whose record cannot be used: failed, with what is known."""
    return Slide(
        id=record.id,
        status="failed",
        filename=record.filename,
        size_bytes=record.size_bytes,
        created_at=record.created_at,
        error=record.error,
        vendor=None,
        width=None,
        height=None,
        mpp=None,
        mpp_source=None,
        objective_power=None,
        tile_count=None,
        encoder_id=None,
        warnings=[],
    )


def _mpp_source(record: SlideRecord) -> MppSource | None:
    if record.mpp is None:
        return None
    if not record.has_pixels:
        return "features"
    return "property" if record.mpp_override is None else "override"


class _Salvage(BaseModel):
    """What a record that cannot be used may still say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    filename: Annotated[str, Field(max_length=255)] | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    created_at: AwareDatetime | None = None


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
        self.index = SlideIndex(store)
        self.names = SlideNames(redis)
        self._with_index: set[str] = set()

    @property
    def served_encoder(self) -> str:
        """The id of the served encoders for a slide that nothing special was said of."""
        return self._encoder_id(None, None)

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

    def with_features(
        self,
        record: SlideRecord,
        features_sha256: str | None,
        doubts: Iterable[encoders.types.SlideWarning] = (),
    ) -> SlideRecord:
        """The record with attached features and what is doubtful about them, or with None from its pixels again, under
        the encoder id for that."""
        others = tuple(it for it in record.warnings if it.code != FEATURES_DOUBTED)
        changes = {"features_sha256": features_sha256, "warnings": (*others, *recorded(doubts))}
        return self._under_served_encoder(record.model_copy(update=changes))

    async def look(self, tenant: str, slide_id: str) -> SlideRecord | UnreadableRecord | None:
        """What there is of the slide's record; None when this tenant has no such slide."""
        if not SLIDE_ID_PATTERN.fullmatch(slide_id):
            return None
        paths = SlidePaths(tenant, slide_id)
        content = await self._store.get(paths.record)
        if content is None:
            return None
        try:
            return self._under_served_encoder(_parsed(content, paths))
        except RecordUnreadable as error:
            return await self._salvaged(content, paths, error)

    async def find(self, tenant: str, slide_id: str) -> SlideRecord | None:
        """The record, or None when this tenant has no such slide.

        Raises:
            RecordUnreadable: it is damaged, or a newer release wrote it.
        """
        if not SLIDE_ID_PATTERN.fullmatch(slide_id):
            return None
        paths = SlidePaths(tenant, slide_id)
        content = await self._store.get(paths.record)
        return None if content is None else self._under_served_encoder(_parsed(content, paths))

    async def require(self, tenant: str, slide_id: str) -> SlideRecord:
        """The record.

        Raises:
            NotFound: this tenant has no such slide.
            RecordUnreadable: as `find`.
        """
        record = await self.find(tenant, slide_id)
        if record is None:
            raise _no_such_slide()
        return record

    async def require_readable_or_not(self, tenant: str, slide_id: str) -> SlideRecord | UnreadableRecord:
        """What there is of the record, for whoever shows or deletes the slide.

        Raises:
            NotFound: this tenant has no such slide.
        """
        record = await self.look(tenant, slide_id)
        if record is None:
            raise _no_such_slide()
        return record

    async def announce(self, record: SlideRecord) -> None:
        """Before the first byte of a new slide is stored: what an upload leaves that dies from here on is found."""
        if record.tenant not in self._with_index:
            await self._begin_index(record.tenant)
            self._with_index.add(record.tenant)
        await self.index.add("pending", record)

    async def _begin_index(self, tenant: str) -> None:
        """A tenant's index is whole when it begins with its first slide; an older release's slides are taken over
        (`server.upkeep.archive_walk`)."""
        if await self.index.state(tenant) is not None or await self._store.keys_after(slides_folder(tenant), "", 1):
            return
        whole = IndexState(
            encoder=self.served_encoder, all_is_whole=True, pending_is_whole=True, walks=1, walked_at=now()
        )
        await self.index.set_state(tenant, whole)

    async def shelf_is_whole(self, tenant: str, shelf: Shelf) -> bool:
        """Whether the shelf holds all that it should: not before the slides of an older release, or those that another
        model has encoded, were gone through."""
        state = await self.index.state(tenant)
        if state is None:
            return not await self._store.keys_after(slides_folder(tenant), "", 1)
        if shelf == "pending":
            return state.pending_is_whole and state.encoder == self.served_encoder
        return state.all_is_whole

    async def create(self, record: SlideRecord) -> bool:
        """Store a new record, also in place of a damaged one; False when the slide was there already."""
        stored = await self.look(record.tenant, record.id)
        if stored is not None and not (isinstance(stored, UnreadableRecord) and stored.replaceable):
            return False
        await self.index.add("all", record)  # before the record: a slide without entry would never be listed
        if not await self._store.create(record.paths.record, _content(record)):
            if stored is None:
                return False
            await self._store.put(record.paths.record, _content(record))
        await self.names.remember(record.tenant, {entry_of(record): record.filename})
        return True

    @asynccontextmanager
    async def lock(self, tenant: str, slide_id: str, patience_s: float | None = None) -> AsyncIterator[None]:
        """Held while the slide's record comes, changes or goes.

        Raises:
            LockError: somebody else had it for `patience_s`.
        """
        name = f"eyepiece:{{{tenant}}}:record:{slide_id}"
        async with self._redis.lock(name, timeout=_LOCK_S, blocking_timeout=patience_s) as lock:
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
                await self._shelve(stored, changed)
                await self._store.put(changed.paths.record, _content(changed))
                if stored.error is not None and changed.error is None:
                    await self.index.take("failed", changed.tenant, entry_of(changed))
            return changed

    async def _shelve(self, stored: SlideRecord, changed: SlideRecord) -> None:
        """Before a record changes: where the slide is looked for from then on."""
        if changed.error is not None:
            await self.index.add("failed", changed)
        elif stored.error is not None or changed.encoder_id != stored.encoder_id:
            await self.index.add("pending", changed)

    async def remove_orphan(self, tenant: str, slide_id: str, patience_s: float | None = None) -> bool:
        """Remove what is left of a slide without a record; False, and nothing happens, when there is a record.

        Raises:
            LockError: as `lock`.
        """
        if not SLIDE_ID_PATTERN.fullmatch(slide_id):  # its folder could be another one
            return False
        async with self.lock(tenant, slide_id, patience_s):
            if await self.find(tenant, slide_id) is not None:
                return False
            await self._store.delete_folder(SlidePaths(tenant, slide_id).folder)
            return True

    async def withdraw(self, tenant: str, entry: str) -> None:
        """The slide is gone, and is listed no more."""
        await self.names.forget(tenant, entry)
        await self.index.remove(tenant, entry)

    def _under_served_encoder(self, record: SlideRecord) -> SlideRecord:
        """What another model found out about the slide does not hold for the one that is served now."""
        # Features were made at some resolution already; what was said of the pixels' does not change them.
        override = record.mpp_override if record.features_sha256 is None else None
        served = self._encoder_id(override, record.features_sha256)
        if record.encoder_id == served:
            return record
        return record.model_copy(update={"encoder_id": served, "error": None, "tile_count": None})

    async def _salvaged(self, content: bytes, paths: SlidePaths, error: RecordUnreadable) -> UnreadableRecord:
        """What a record says that is this slide's; else what the store knows of its objects."""
        said = _fields(content)
        if (said.get("tenant", paths.tenant), said.get("id", paths.slide_id)) != (paths.tenant, paths.slide_id):
            said = {}  # another tenant's file name can be PHI
        try:
            known = _Salvage.model_validate(said)
        except ValidationError:
            known = _Salvage()
        source = f"{paths.folder}/source"
        return UnreadableRecord(
            tenant=paths.tenant,
            id=paths.slide_id,
            filename=known.filename or "slide",
            size_bytes=await self._store.stored_bytes(source) if known.size_bytes is None else known.size_bytes,
            created_at=known.created_at or await self._store.changed_at(paths.record) or now(),
            error=SlideError(code=error.code, detail=error.detail),
            replaceable=not isinstance(error, RecordNewer),
        )

    async def tenants(self) -> list[str]:
        """Every tenant that has a slide."""
        return await self._store.folders("tenants")


def _content(record: SlideRecord) -> bytes:
    is_first = record.format_version == _FORMAT_VERSION == 1
    return record.model_dump_json(exclude={"format_version"} if is_first else None).encode()


def _parsed(content: bytes, paths: SlidePaths) -> SlideRecord:
    version = _fields(content).get("format_version", _FORMAT_VERSION)
    if isinstance(version, int) and version > _FORMAT_VERSION:
        raise RecordNewer(
            "A newer release of Eyepiece wrote this slide's record; run that one, or delete the slide and upload it "
            "again."
        )
    try:
        record = SlideRecord.model_validate_json(content)
    except ValidationError as error:
        raise _damaged("cannot be read") from error
    if (record.tenant, record.id) != (paths.tenant, paths.slide_id):
        raise _damaged("is another slide's")
    return record


def _fields(content: bytes) -> dict[str, Any]:
    """The JSON object in a record's bytes, empty when there is none."""
    try:
        found = orjson.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _damaged(what: str) -> RecordUnreadable:
    return RecordUnreadable(f"The stored record of this slide {what}; upload the slide again, or delete it.")


def _no_such_slide() -> NotFound:
    return NotFound("There is no slide with this id; upload it to POST /v1/slides first.")


async def _renew(lock: Lock) -> None:
    while True:
        await asyncio.sleep(_LOCK_S / 3)
        await lock.reacquire()
