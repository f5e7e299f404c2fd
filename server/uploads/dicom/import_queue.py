"""Which imports are to go on, and when: a list of all replicas, in Redis. What Redis loses is found again in the store.

Whoever goes on with one puts off its moment by a lease and renews that; when it dies another one goes on.
"""

import time

from redis.asyncio import Redis

_KEY = "eyepiece:dicom-imports:due"
LEASE_S = 30.0


class ImportQueue:
    """Moments by tenant and import."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, tenant: str, import_id: str, in_s: float = 0.0) -> None:
        """It goes on in so many seconds, in place of any moment that it had."""
        await self._redis.zadd(_KEY, {f"{tenant}/{import_id}": time.time() + in_s})

    async def put_if_absent(self, tenant: str, import_id: str) -> None:
        """It goes on now, unless it has a moment."""
        await self._redis.zadd(_KEY, {f"{tenant}/{import_id}": time.time()}, nx=True)

    async def remove(self, tenant: str, import_id: str) -> None:
        """It is over."""
        await self._redis.zrem(_KEY, f"{tenant}/{import_id}")

    async def take(self, most: int) -> list[tuple[str, str]]:
        """Some that are due, leased to this caller."""
        now = time.time()
        found = await self._redis.zrangebyscore(_KEY, "-inf", now, start=0, num=most)
        taken = []
        for member in found:
            name = member.decode() if isinstance(member, bytes) else str(member)
            # Taken out and put back: of several callers one alone takes it out. Who dies between is made up for.
            if await self._redis.zrem(_KEY, name):
                await self._redis.zadd(_KEY, {name: now + LEASE_S})
                tenant, _, import_id = name.partition("/")
                taken.append((tenant, import_id))
        return taken

    async def renew(self, tenant: str, import_id: str) -> None:
        """The lease begins anew."""
        await self.put(tenant, import_id, LEASE_S)
