"""A tenant's usage: what it has stored and had encoded, and how much it may.

Two counters in Redis for each tenant, so that no request walks the store: stored bytes, which come from the store
itself when they are not known and once a day (`server.upkeep.archive_walk`: Redis may have lost some, and a worker that
dies counts nothing), and the encodings of this day (UTC).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pydantic import BaseModel, Field
from redis.asyncio import Redis

from server.admission.quota import Quota
from server.errors import QuotaExceeded
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore, slides_folder

# A count that nobody refreshes is made anew.
_STORED_TTL_S = 7 * 86_400
_DAY_TTL_S = 2 * 86_400
# A form is a little larger than its files: what is announced beyond the quota by less is received and measured.
_FORM_BYTES = 2**20
_UNKNOWN, _TOO_MUCH = -1, -2
# Adds ARGV[1] unless that gives more than ARGV[2]; 0 there is no limit.
_TAKE = """
    local stored = redis.call('GET', KEYS[1])
    if not stored then return -1 end
    local quota = tonumber(ARGV[2])
    if quota > 0 and tonumber(stored) + tonumber(ARGV[1]) > quota then return -2 end
    return redis.call('INCRBY', KEYS[1], ARGV[1])
"""
# Only what is known is changed: a counter that began at this moment would hold nothing but the change.
_CHANGE = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('INCRBY', KEYS[1], ARGV[1]) end"


class QuotaReport(BaseModel):
    """What the tenant has used, and how much it may."""

    stored_bytes: int = Field(
        description="Slides, features and embeddings, and unfinished uploads as large as they are to become."
    )
    stored_bytes_quota: int | None = Field(description="Null where there is no limit.")
    encodings_today: int = Field(description="Since midnight UTC.")
    encodings_per_day_quota: int | None = Field(description="Null where there is no limit.")


@dataclass
class Room:
    """Bytes that were counted; say so when they were stored."""

    is_used: bool = False


async def _nothing_reserved(tenant: str) -> int:
    return 0


class Usage:
    """Counts and limits; asks Redis, and the store where Redis does not know."""

    def __init__(
        self,
        redis: Redis,
        store: SlideStore,
        everybody: Quota,
        tenants: Mapping[str, Quota],
        reserved_bytes: Callable[[str], Awaitable[int]] = _nothing_reserved,
    ) -> None:
        """`reserved_bytes` says what a tenant has reserved for slides that are being uploaded."""
        self._redis = redis
        self._store = store
        self._everybody = everybody
        self._tenants = tenants
        self.reserved_bytes = reserved_bytes
        self._take = redis.register_script(_TAKE)
        self._change = redis.register_script(_CHANGE)

    async def report(self, tenant: str) -> QuotaReport:
        """What the tenant has used of what it may."""
        return QuotaReport(
            stored_bytes=await self._stored_bytes(tenant),
            stored_bytes_quota=self._stored_quota(tenant) or None,
            encodings_today=await self._encodings_today(tenant),
            encodings_per_day_quota=self._encodings_quota(tenant) or None,
        )

    async def require_room(self, tenant: str, announced_bytes: int) -> int | None:
        """How many bytes the tenant may still store, None for any number; `announced_bytes` is what a request says.

        Raises:
            QuotaExceeded: not so many.
        """
        quota = self._stored_quota(tenant)
        if not quota:
            return None
        left = quota - await self._stored_bytes(tenant)
        if left <= 0 or announced_bytes - _FORM_BYTES > left:
            raise stored_too_much(quota)
        return left

    @asynccontextmanager
    async def room_for(self, tenant: str, size_bytes: int) -> AsyncIterator[Room]:
        """Count bytes that are stored in the block, unless it leaves its room unused; two uploads at once cannot both
        have the last of a quota.

        Raises:
            QuotaExceeded: then nothing is counted.
        """
        if size_bytes:
            await self._take_room(tenant, size_bytes)
        room = Room()
        try:
            yield room
        finally:
            if not room.is_used:
                await self.give_room_back(tenant, size_bytes)

    async def _take_room(self, tenant: str, size_bytes: int) -> None:
        quota, key = self._stored_quota(tenant), _stored_key(tenant)
        stored = await self._take(keys=[key], args=[size_bytes, quota])
        if stored == _UNKNOWN:
            await self._stored_bytes(tenant)
            stored = await self._take(keys=[key], args=[size_bytes, quota])
        if stored == _TOO_MUCH:
            raise stored_too_much(quota)

    async def count_stored(self, tenant: str, size_bytes: int) -> None:
        """Bytes that an encode has stored, whatever the quota."""
        await self._change(keys=[_stored_key(tenant)], args=[size_bytes])

    async def give_room_back(self, tenant: str, size_bytes: int) -> None:
        """Bytes were deleted, or not stored after all."""
        await self._change(keys=[_stored_key(tenant)], args=[-size_bytes])

    async def require_encoding(self, tenant: str) -> None:
        """Raises QuotaExceeded when the tenant has had its encodings of this day."""
        quota = self._encodings_quota(tenant)
        if quota and await self._encodings_today(tenant) >= quota:
            moment = now()
            tomorrow = datetime.combine(moment.date() + timedelta(days=1), time(), moment.tzinfo)
            raise QuotaExceeded(
                f"Your tenant has used its {quota} encodings for today (UTC); try again tomorrow, or ask the operator "
                "for more.",
                retry_after_s=int((tomorrow - moment).total_seconds()) + 1,
            )

    async def count_encoding(self, tenant: str) -> None:
        """One more was queued."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.incr(_day_key(tenant))
            pipe.expire(_day_key(tenant), _DAY_TTL_S)
            await pipe.execute()

    async def counted(self, tenant: str) -> int | None:
        """The stored bytes as they are counted, None when they are not."""
        known = await self._redis.get(_stored_key(tenant))
        return None if known is None else int(known)

    async def correct(self, tenant: str, counted: int | None, stored: int) -> None:
        """The store was found to hold so many bytes, where `counted` were counted when the look began; what has changed
        meanwhile stays counted."""
        key = _stored_key(tenant)
        if counted is None:
            await self._redis.set(key, stored, ex=_STORED_TTL_S, nx=True)
            return
        await self._change(keys=[key], args=[stored - counted])
        await self._redis.expire(key, _STORED_TTL_S)

    async def _stored_bytes(self, tenant: str) -> int:
        known = await self.counted(tenant)
        if known is None:
            await self.correct(tenant, None, await self._found_bytes(tenant))
            known = await self.counted(tenant)
        return max(0, known or 0)

    async def _found_bytes(self, tenant: str) -> int:
        return await self._store.stored_bytes(slides_folder(tenant)) + await self.reserved_bytes(tenant)

    async def _encodings_today(self, tenant: str) -> int:
        return int(await self._redis.get(_day_key(tenant)) or 0)

    def _stored_quota(self, tenant: str) -> int:
        own = self._tenants.get(tenant, self._everybody).stored_bytes
        return own if own is not None else self._everybody.stored_bytes or 0

    def _encodings_quota(self, tenant: str) -> int:
        own = self._tenants.get(tenant, self._everybody).encodings_per_day
        return own if own is not None else self._everybody.encodings_per_day or 0


def stored_too_much(quota_bytes: int) -> QuotaExceeded:
    """The refusal of bytes beyond a quota."""
    return QuotaExceeded(
        f"This exceeds your tenant's storage quota ({quota_bytes / 2**30:.3g} GiB); delete slides, or ask the operator "
        "for more."
    )


def _stored_key(tenant: str) -> str:
    return f"eyepiece:stored-bytes:{{{tenant}}}"


def _day_key(tenant: str) -> str:
    return f"eyepiece:encodings:{{{tenant}}}:{now().date().isoformat()}"
