"""When a series that has come is quiet for long enough to become a slide: a list of all replicas, in Redis.

What Redis loses is found again in the store, by the walk of `server.upkeep.series_watch`.
"""

import time

from redis.asyncio import Redis

_KEY = "eyepiece:dicom-series:due"
_AT_ONCE = 16


class SeriesClock:
    """Moments by tenant and slide in the making."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def set(self, tenant: str, making: str, in_s: float) -> None:
        """It is due in so many seconds, in place of any moment that it had."""
        await self._redis.zadd(_KEY, {f"{tenant}/{making}": time.time() + in_s})

    async def due_in_s(self, tenant: str, making: str) -> float | None:
        """In how many seconds it is due; None when nobody waits for that."""
        score = await self._redis.zscore(_KEY, f"{tenant}/{making}")
        return None if score is None else max(0.0, score - time.time())

    async def take_due(self) -> list[tuple[str, str]]:
        """Some that are due, for this caller alone."""
        found = await self._redis.zrangebyscore(_KEY, "-inf", time.time(), start=0, num=_AT_ONCE)
        taken = []
        for member in found:
            name = member.decode() if isinstance(member, bytes) else str(member)
            if await self._redis.zrem(_KEY, name):
                tenant, _, making = name.partition("/")
                taken.append((tenant, making))
        return taken
