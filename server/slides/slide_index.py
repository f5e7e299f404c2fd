"""The index of the archive: empty objects in the slide store whose names are in the order of upload, newest first.

    index/<shelf>/<tenant>/<5 digits>/<2 digits>/<6 digits>-<slide id>
    index/state/<tenant>.json

The digits are the milliseconds from the slide's upload to a moment in the year 2286. They are folders so that a bucket
lists the newest first in one request, and so that no local folder grows large (of a day, of a quarter of an hour).

The shelves: `all` slides; those `pending`, that are neither encoded nor failed; those `failed`. An entry may be one too
many, never one too few: it is written before what it tells of, and taken away after. Whoever reads a shelf looks at
the slide, and gives what does not fit to the reconciler by an entry in `pending`; only the reconciler takes entries
away, and a deletion does (docs/decisions/0037).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.storage.slide_store import TENANT_PATTERN, SlideStore, require_tenant_name

Shelf = Literal["all", "pending", "failed"]
# A place in the order: the digits and the slide id.
ENTRY_PATTERN = re.compile(r"\d{13}-[0-9a-f]{64}")
_LAST_MS = 9_999_999_999_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES_TTL_S = 30 * 86_400


class Dated(Protocol):
    """A record, readable or not."""

    @property
    def tenant(self) -> str:
        """Whose it is."""

    @property
    def id(self) -> str:
        """The slide's."""

    @property
    def created_at(self) -> datetime:
        """When it was uploaded."""


@dataclass(frozen=True)
class PendingEntry:
    """An entry of the shelf `pending`; `path` is where to go on behind it."""

    tenant: str
    entry: str
    path: str


class IndexState(BaseModel):
    """How far a tenant's slides were gone through (`server.upkeep.archive_walk`): `encoder` is the served encoder's id
    that they were gone through for, `after` the last slide of a walk that is not over, None between two walks. Shelf
    `all` is whole after the first walk, `pending` after the first for this encoder."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format_version: int = 1
    encoder: str
    all_is_whole: bool
    pending_is_whole: bool
    after: str | None = None
    walks: int = 0
    walked_at: AwareDatetime | None = None


def entry_of(record: Dated) -> str:
    """The record's place in the order."""
    return entry_at(record.created_at, record.id)


def entry_at(moment: datetime, slide_id: str) -> str:
    """The place of a slide that was uploaded then."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    until = _LAST_MS - (aware - _EPOCH) // timedelta(milliseconds=1)
    return f"{min(max(until, 0), _LAST_MS):013d}-{slide_id}"


def slide_id_of(entry: str) -> str:
    """Which slide an entry is about."""
    return entry[14:]


class SlideIndex:
    """The shelves of all tenants."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def add(self, shelf: Shelf, record: Dated) -> None:
        """Put the slide's entry on a shelf."""
        await self.add_entry(shelf, record.tenant, entry_of(record))

    async def add_entry(self, shelf: Shelf, tenant: str, entry: str) -> None:
        """The same for an entry that was read."""
        await self._store.put(f"{_folder(shelf, tenant)}/{index_path(entry)}", b"")

    async def take(self, shelf: Shelf, tenant: str, entry: str) -> None:
        """Take an entry from a shelf, if it is there."""
        await self._store.discard(f"{_folder(shelf, tenant)}/{index_path(entry)}")

    async def remove(self, tenant: str, entry: str) -> None:
        """Take an entry from all shelves, last from the one that it would be found on again."""
        shelves: tuple[Shelf, ...] = ("all", "failed", "pending")
        for shelf in shelves:
            await self.take(shelf, tenant, entry)

    async def entries(self, shelf: Shelf, tenant: str, after: str, most: int) -> list[str]:
        """Up to `most` entries of a tenant, newest first, behind the entry `after` ("" for the newest)."""
        found = await self._store.keys_after(_folder(shelf, tenant), index_path(after) if after else "", most)
        return [entry for entry in map(index_entry, found) if ENTRY_PATTERN.fullmatch(entry)]

    async def pending(self, after: str, most: int) -> list[PendingEntry]:
        """Up to `most` entries of everybody behind the path `after` ("" is the first); what is none has no tenant."""
        found = await self._store.keys_after("index/pending", after, most)
        return [_pending(path) for path in found]

    async def state(self, tenant: str) -> IndexState | None:
        """How far the tenant's slides were gone through; None when nobody began, or it cannot be read."""
        content = await self._store.get(_state_key(tenant))
        try:
            return None if content is None else IndexState.model_validate_json(content)
        except ValidationError:  # then they are gone through again
            return None

    async def set_state(self, tenant: str, state: IndexState) -> None:
        """Note how far."""
        await self._store.put(_state_key(tenant), state.model_dump_json().encode())


class SlideNames:
    """File names in Redis, folded for searching, by entry: they never change. What is forgotten is read again from the
    record. They can identify patients, as the record can: in values of a tenant's key, never in a key."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def known(self, tenant: str, entries: Sequence[str]) -> dict[str, str]:
        """Of the entries whose name is known, which it is."""
        if not entries:
            return {}
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hmget(_names_key(tenant), list(entries))
                pipe.expire(_names_key(tenant), _NAMES_TTL_S)
                found = (await pipe.execute())[0]
        except RedisError:
            return {}
        return {entry: name.decode() for entry, name in zip(entries, found, strict=True) if name is not None}

    async def remember(self, tenant: str, names: Mapping[str, str]) -> None:
        """Note file names by entry."""
        if not names:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(_names_key(tenant), mapping={entry: folded(name) for entry, name in names.items()})
                pipe.expire(_names_key(tenant), _NAMES_TTL_S)
                await pipe.execute()
        except RedisError:
            return

    async def forget(self, tenant: str, entry: str) -> None:
        """Drop the name of a slide that was deleted."""
        await self._redis.hdel(_names_key(tenant), entry)


def folded(name: str) -> str:
    """A name as it is compared: without regard to case, and to how an accent is written."""
    return unicodedata.normalize("NFC", name).casefold()


def _pending(path: str) -> PendingEntry:
    """An object that somebody else put there is no entry: what would be done with its slide must not be done."""
    tenant, _, place = path.partition("/")
    entry = index_entry(place)
    is_one = TENANT_PATTERN.fullmatch(tenant) and ENTRY_PATTERN.fullmatch(entry)
    return PendingEntry(tenant, entry, path) if is_one else PendingEntry("", "", path)


def _folder(shelf: Shelf, tenant: str) -> str:
    return f"index/{shelf}/{require_tenant_name(tenant)}"


def index_path(entry: str) -> str:
    """An entry as a part of a key."""
    return f"{entry[:5]}/{entry[5:7]}/{entry[7:]}"


def index_entry(path: str) -> str:
    """The entry that a part of a key is."""
    return path.replace("/", "")


def _state_key(tenant: str) -> str:
    return f"index/state/{require_tenant_name(tenant)}.json"


def _names_key(tenant: str) -> str:
    return f"eyepiece:{{{tenant}}}:slide-names"
