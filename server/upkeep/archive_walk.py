"""All slides of a tenant, gone through: once for the index of an older release's archive, once for every model that is
served anew, and once a day to be sure.

Everything else costs as much as there is to do (`server.slides.slide_index`); this costs as much as is stored. So it
lists and reads little: a slide that is listed, has its embedding and nothing left over is not opened. It counts the
stored bytes on the way. How far it came is noted in the store, so that a server that is stopped goes on, and one walk
goes on at a time.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from server.slides.catalogue import SlideCatalogue
from server.slides.slide_index import IndexState, Shelf, entry_at, entry_of, slide_id_of
from server.slides.slide_record import SlideRecord, UnreadableRecord, now
from server.slides.usage import Usage
from server.storage.slide_store import SLIDE_ID_PATTERN, TENANT_PATTERN, SlideStore, slides_folder
from server.upkeep.rounds import go_round

log = structlog.get_logger(__name__)
_LOOK_EVERY_S = 600.0
_LOCK_KEY = "eyepiece:archive-walk"
# A walk whose server died goes on elsewhere after so long.
_LOCK_S = 60.0
# Slides that are looked at together.
_AT_ONCE = 32
_NOTED_EVERY = 1024
_ENTRIES_AT_ONCE = 5_000
_SHELVES: tuple[Shelf, ...] = ("all", "failed", "pending")
# While releases are exchanged the older one still stores slides that the new one's first walk has not seen.
_AFTER_FIRST, _AFTER_THAT = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class _Found:
    """A slide's folder: sizes in bytes of its objects by their names."""

    slide_id: str
    objects: dict[str, int]


class ArchiveWalk:
    """Walks through all tenants' slides, in one of the API replicas."""

    def __init__(self, redis: Redis, store: SlideStore, slides: SlideCatalogue, usage: Usage) -> None:
        self._redis = redis
        self._store = store
        self._slides = slides
        self._usage = usage

    async def run(self) -> None:
        """Look whether a walk is due until cancelled; what is away is tried again."""
        await go_round(self.walk_all, _LOOK_EVERY_S, "archive_walk_failed")

    async def walk_all(self) -> int:
        """Go through the slides of every tenant for whom it is due, unless another replica does; how many slides."""
        lock = self._redis.lock(_LOCK_KEY, timeout=_LOCK_S)
        if not await lock.acquire(blocking=False):
            return 0
        walked = 0
        try:
            for tenant in await self._slides.tenants():
                if TENANT_PATTERN.fullmatch(tenant):  # else a folder that is none of ours
                    await lock.reacquire()
                    walked += await self._walk_if_due(tenant, lock)
        finally:
            try:
                await lock.release()
            except LockError:  # it took longer than it may, and another server walks now
                log.warning("archive_walk_lock_lost")
        return walked

    async def _walk_if_due(self, tenant: str, lock: Lock) -> int:
        state = await self._due(tenant)
        if state is None:
            return 0
        log.info("archive_walk", goes_on=bool(state.after))
        await self._slides.index.set_state(tenant, state)
        counted = await self._usage.counted(tenant)
        walked, stored_bytes = await self._walk(tenant, state, lock)
        done = {"all_is_whole": True, "pending_is_whole": True, "after": None, "walks": state.walks + 1}
        await self._slides.index.set_state(tenant, state.model_copy(update=done | {"walked_at": now()}))
        if not state.after:  # else an earlier walk has seen some of it
            await self._usage.correct(tenant, counted, stored_bytes + await self._usage.reserved_bytes(tenant))
        return walked

    async def _due(self, tenant: str) -> IndexState | None:
        """Where to begin, or to go on; None when nothing is due."""
        state, encoder = await self._slides.index.state(tenant), self._slides.served_encoder
        if state is None:
            return IndexState(encoder=encoder, all_is_whole=False, pending_is_whole=False, after="")
        if state.encoder != encoder:
            return state.model_copy(update={"encoder": encoder, "pending_is_whole": False, "after": ""})
        if state.after is not None:
            return state
        pause = _AFTER_FIRST if state.walks < 2 else _AFTER_THAT
        if state.walked_at is not None and now() - state.walked_at < pause:
            return None
        return state.model_copy(update={"after": ""})

    async def _walk(self, tenant: str, state: IndexState, lock: Lock) -> tuple[int, int]:
        """How many slides there are behind `state.after`, and how many bytes."""
        shelves = [await self._on(shelf, tenant) for shelf in _SHELVES]
        listed, encoder = shelves[0], self._slides.served_encoder
        walked = stored_bytes = 0
        doubtful: list[_Found] = []
        async for slide_id, objects in self._store.folders_with_objects(slides_folder(tenant), state.after or ""):
            walked += 1
            stored_bytes += sum(objects.values())
            found = _Found(slide_id, objects)
            if SLIDE_ID_PATTERN.fullmatch(slide_id) and not (slide_id in listed and _is_well(found, encoder)):
                doubtful.append(found)
            is_noted = walked % _NOTED_EVERY == 0
            if is_noted or len(doubtful) == _AT_ONCE:
                await self._look_at_all(tenant, doubtful, shelves)
                doubtful = []
                await lock.reacquire()
            if is_noted:
                await self._slides.index.set_state(tenant, state.model_copy(update={"after": slide_id}))
        await self._look_at_all(tenant, doubtful, shelves)
        return walked, stored_bytes

    async def _on(self, shelf: Shelf, tenant: str) -> set[str]:
        """The ids of all slides on a shelf."""
        found: set[str] = set()
        after = ""
        while entries := await self._slides.index.entries(shelf, tenant, after, _ENTRIES_AT_ONCE):
            found.update(map(slide_id_of, entries))
            after = entries[-1]
        return found

    async def _look_at_all(self, tenant: str, doubtful: list[_Found], shelves: list[set[str]]) -> None:
        """Put slides on the shelves where they belong and are not; the reconciler does the rest."""
        index, slides = self._slides.index, self._slides
        records = await asyncio.gather(*(slides.look(tenant, found.slide_id) for found in doubtful))
        missing: list[Awaitable[None]] = []
        names: dict[str, str] = {}
        for found, record in zip(doubtful, records, strict=True):
            if record is None:  # an upload under way, or what one has left
                missing.append(index.add_entry("pending", tenant, entry_at(now(), found.slide_id)))
                continue
            belongs = _shelves_of(record, slides, found)
            missing += [
                index.add(shelf, record)
                for shelf, there in zip(_SHELVES, shelves, strict=True)
                # Whether it is pending was seen before this walk began, perhaps for another model.
                if shelf in belongs and (record.id not in there or shelf == "pending")
            ]
            if record.id not in shelves[0]:
                names[entry_of(record)] = record.filename
        await asyncio.gather(*missing)
        await slides.names.remember(tenant, names)


def _shelves_of(record: SlideRecord | UnreadableRecord, slides: SlideCatalogue, found: _Found) -> set[Shelf]:
    if isinstance(record, UnreadableRecord):
        return {"all", "failed"}
    belongs: set[Shelf] = {"all"} if record.error is None else {"all", "failed"}
    wanted = slides.wanted_by(record)
    if _has_parts(found) or any(it.error is None and not _has_embedding(found, it.encoder_id) for it in wanted):
        belongs.add("pending")
    return belongs


def _is_well(found: _Found, encoder_id: str) -> bool:
    """Encoded, by what its folder holds, and nothing is left over."""
    return "slide.json" in found.objects and _has_embedding(found, encoder_id) and not _has_parts(found)


def _has_embedding(found: _Found, encoder_id: str) -> bool:
    return f"embeddings/{encoder_id}.safetensors" in found.objects


def _has_parts(found: _Found) -> bool:
    return any(name.startswith("parts/") for name in found.objects)
