"""The catalogue of a tenant's slides: their records, found, changed and listed in the index.

A record that cannot be used is listed with what is known, can be deleted, and a damaged one is replaced by the next
upload of the slide (docs/decisions/0017).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.lock import Lock

import encoders.types
from encoders.tile_budget import TileBudget
from server.errors import NotFound, RecordNewer, RecordUnreadable
from server.slides.metadata_index import MetadataIndex, Said, says
from server.slides.slide_index import IndexState, Shelf, SlideIndex, SlideNames, entry_of, slide_id_of
from server.slides.slide_record import (
    FEATURES_DOUBTED,
    TILE_BUDGET,
    EncodingRecord,
    Salvage,
    SlideError,
    SlideRecord,
    SlideTileBudget,
    SlideWarning,
    UnreadableRecord,
    now,
    parse_record,
    record_bytes,
    record_fields,
    recorded,
)
from server.storage.slide_store import SLIDE_ID_PATTERN, SlidePaths, SlideStore, slides_folder
from server.to_the_end import stop_beating

# Names the served encoders for an override of µm/px, the digest of attached features, and a tile budget.
EncoderIds = Callable[[float | None, str | None, TileBudget | None], str]
# A lock whose holder died is free after so long; a living holder renews it, however slow its store is.
_LOCK_S = 15.0


class SlideCatalogue:
    """Records of all tenants. Updates are serialised by a lock in Redis: API and worker both write.

    A record is seen by one of the served models, the default unless another is named, and changes for that one.
    """

    def __init__(
        self, store: SlideStore, redis: Redis, encoder_id: EncoderIds, others: Mapping[str, EncoderIds] | None = None
    ) -> None:
        """`encoder_id` is the default model's, `others` has those of further models by name."""
        self._store = store
        self._redis = redis
        self._encoder_id = encoder_id
        self._others = dict(others or {})
        self.index = SlideIndex(store)
        self.names = SlideNames(redis)
        self.described = MetadataIndex(store)
        self._with_index: set[str] = set()

    @property
    def other_models(self) -> tuple[str, ...]:
        """The names of all models but the default."""
        return tuple(self._others)

    @property
    def served_encoder(self) -> str:
        """The id of the default model's encoders for a slide that nothing special was said of."""
        return self._encoder_id(None, None, None)

    def new_record(self, tenant: str, slide_id: str, filename: str, size_bytes: int) -> SlideRecord:
        """The record of a slide that was just received."""
        return SlideRecord(
            id=slide_id,
            tenant=tenant,
            generation=secrets.token_hex(8),
            filename=filename,
            size_bytes=size_bytes,
            created_at=now(),
            encoder_id=self._encoder_id(None, None, None),
        )

    def with_override(self, record: SlideRecord, mpp: float | None) -> SlideRecord:
        """The record with another µm/px, under the encoder id that goes with it."""
        override = {"mpp_override": mpp, "mpp": mpp or record.mpp}
        return self._under_served_encoder(record.model_copy(update=override))

    def with_budget(self, record: SlideRecord, budget: SlideTileBudget | None) -> SlideRecord:
        """The record with another tile budget, None for all tiles, under the encoder id that goes with it."""
        others = tuple(it for it in record.warnings if it.code != TILE_BUDGET)
        # Said before it is encoded: an embedding that is there already is not made again, and nobody counts its tiles.
        said = () if budget is None else (SlideWarning(code=TILE_BUDGET, detail=_budget_detail(budget)),)
        changes = {"tile_budget": budget, "warnings": (*said, *others)}
        return self._under_served_encoder(record.model_copy(update=changes))

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

    def seen_by(self, record: SlideRecord, model: str) -> SlideRecord:
        """The record as that model sees it; the default one where the name is no other's."""
        name = model if model in self._others else ""
        if record.model == name:
            return record
        ids = self._others.get(name, self._encoder_id)
        return record.seen_by(name, ids(*_embedding_inputs(record)))

    def wanted_by(self, record: SlideRecord) -> list[SlideRecord]:
        """The record as each model sees it that the slide is, or is to be, encoded for; the default first."""
        seen = [self.seen_by(record, model) for model in ("", *self._others)]
        return [it for it in seen if it.wanted]

    async def look(self, tenant: str, slide_id: str, model: str = "") -> SlideRecord | UnreadableRecord | None:
        """What there is of the slide's record; None when this tenant has no such slide."""
        content = await self._content(tenant, slide_id)
        if content is None:
            return None
        try:
            return self._parsed(content, SlidePaths(tenant, slide_id), model)
        except RecordUnreadable as error:
            return await self._salvaged(content, SlidePaths(tenant, slide_id), error)

    async def find(self, tenant: str, slide_id: str, model: str = "") -> SlideRecord | None:
        """The record, or None when this tenant has no such slide.

        Raises:
            RecordUnreadable: it is damaged, or a newer release wrote it.
        """
        content = await self._content(tenant, slide_id)
        return None if content is None else self._parsed(content, SlidePaths(tenant, slide_id), model)

    async def _content(self, tenant: str, slide_id: str) -> bytes | None:
        if not SLIDE_ID_PATTERN.fullmatch(slide_id):
            return None
        return await self._store.get(SlidePaths(tenant, slide_id).record)

    def _parsed(self, content: bytes, paths: SlidePaths, model: str) -> SlideRecord:
        return self.seen_by(self._under_served_encoder(parse_record(content, paths)), model)

    async def require(self, tenant: str, slide_id: str, model: str = "") -> SlideRecord:
        """The record.

        Raises:
            NotFound: this tenant has no such slide.
            RecordUnreadable: as `find`.
        """
        record = await self.find(tenant, slide_id, model)
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
        await self.described.add(record, record.metadata.values)
        if not await self._store.create(record.paths.record, record_bytes(record)):
            if stored is None:
                return False
            await self._store.put(record.paths.record, record_bytes(record))
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
                await stop_beating(renewing)

    async def update(self, record: SlideRecord, change: Callable[[SlideRecord], SlideRecord]) -> SlideRecord | None:
        """Apply `change` to the stored record; None when that upload of the slide is gone meanwhile."""
        async with self.lock(record.tenant, record.id):
            stored = await self.find(record.tenant, record.id, record.model)
            if stored is None or stored.generation != record.generation:
                return None
            changed = change(stored)
            if changed != stored:
                await self._shelve(stored, changed)
                before, after = set(stored.metadata.values), set(changed.metadata.values)
                await self.described.add(changed, after - before)
                await self._store.put(changed.paths.record, record_bytes(self.seen_by(changed, "")))
                gone = [it for it in before - after if not says(changed, it)]  # in other letters it has the same entry
                await self.described.take(changed.tenant, entry_of(changed), gone)
                if not changed.model and stored.error is not None and changed.error is None:
                    await self.index.take("failed", changed.tenant, entry_of(changed))
            return changed

    async def _shelve(self, stored: SlideRecord, changed: SlideRecord) -> None:
        """Before a record changes: where the slide is looked for from then on. Failed is what failed for the default
        model; pending, what is to be encoded for any."""
        if changed.error is not None:
            if not changed.model:
                await self.index.add("failed", changed)
        elif (
            (changed.wanted and not stored.wanted)
            or stored.error is not None
            or changed.encoder_id != stored.encoder_id
        ):
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

    async def withdraw(self, tenant: str, entry: str, said: Iterable[Said] = ()) -> None:
        """The slide is gone, and is listed no more. By what else was said of it than `said`, because nobody can read
        its record, it is found until somebody looks (`forget_entry`)."""
        await self.names.forget(tenant, entry)
        await self.described.take(tenant, entry, said)
        await self.index.remove(tenant, entry)

    async def forget_entry(self, tenant: str, entry: str, said: Said) -> None:
        """Take an entry away by which no slide should be found, unless one is by now.

        Raises:
            LockError: the slide changes at this moment.
        """
        async with self.lock(tenant, slide_id_of(entry), patience_s=0.2):
            record = await self.look(tenant, slide_id_of(entry))
            if isinstance(record, UnreadableRecord):
                return
            if record is None or entry_of(record) != entry or not says(record, said):
                await self.described.take(tenant, entry, [said])

    def _under_served_encoder(self, record: SlideRecord) -> SlideRecord:
        """What another model found out about the slide does not hold for the default one; it is kept for that model
        where it is still served, and what this one found out before it was the default is found again."""
        inputs = _embedding_inputs(record)
        served = self._encoder_id(*inputs)
        if record.encoder_id == served:
            return record
        encodings = dict(record.encodings)
        known = next((name for name, it in encodings.items() if it.encoder_id == served), None)
        found = EncodingRecord(encoder_id=served, warnings=record.warnings) if known is None else encodings.pop(known)
        for name, ids in self._others.items():
            if ids(*inputs) == record.encoder_id:
                encodings.setdefault(name, record.encoding)
        changes = {name: getattr(found, name) for name in EncodingRecord.model_fields}
        return record.model_copy(update={**changes, "encodings": encodings})

    async def _salvaged(self, content: bytes, paths: SlidePaths, error: RecordUnreadable) -> UnreadableRecord:
        """What a record says that is this slide's; else what the store knows of its objects."""
        said = record_fields(content)
        if (said.get("tenant", paths.tenant), said.get("id", paths.slide_id)) != (paths.tenant, paths.slide_id):
            said = {}  # another tenant's file name can be PHI
        try:
            known = Salvage.model_validate(said)
        except ValidationError:
            known = Salvage()
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


def _embedding_inputs(record: SlideRecord) -> tuple[float | None, str | None, TileBudget | None]:
    """What of a slide its encoder ids depend on: the override of µm/px, the digest of attached features, and the tile
    budget. Features were made of some tiles at some resolution already; what was said of the pixels does not change
    them."""
    if record.features_sha256 is not None:
        return None, record.features_sha256, None
    return record.mpp_override, None, record.budget


def _budget_detail(budget: SlideTileBudget) -> str:
    return f"As was asked, at most {budget.tiles} of the slide's tiles are used; others are not seen."


def _no_such_slide() -> NotFound:
    return NotFound("There is no slide with this id; upload it to POST /v1/slides first.")


async def _renew(lock: Lock) -> None:
    while True:
        await asyncio.sleep(_LOCK_S / 3)
        await lock.reacquire()
