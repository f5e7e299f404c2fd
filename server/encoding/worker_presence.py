"""Presence of warm encoder workers in Redis: sorted sets of names by the time at which each expires, one of all workers
and one of those that encode for a model."""

import time
from collections.abc import Sequence

from redis.asyncio import Redis

_KEY = "eyepiece:workers"
_VALID_S = 15.0
_FORGOTTEN_S = 60
ANNOUNCE_EVERY_S = 5.0


async def announce_worker(redis: Redis, worker_id: str, models: Sequence[str] = ()) -> None:
    """Say that this worker is warm for these models; good for three missed announcements."""
    async with redis.pipeline(transaction=True) as pipe:
        for key in _keys(models):
            pipe.zadd(key, {worker_id: time.time() + _VALID_S})
            pipe.zremrangebyscore(key, 0, time.time())
        for key in _keys(models)[1:]:  # a model that is served no more leaves nothing
            pipe.expire(key, _FORGOTTEN_S)
        await pipe.execute()


async def withdraw_worker(redis: Redis, worker_id: str, models: Sequence[str] = ()) -> None:
    """Say that this worker is going."""
    for key in _keys(models):
        await redis.zrem(key, worker_id)


async def count_workers(redis: Redis, model: str | None = None) -> int:
    """How many workers are warm, or warm for this model."""
    count: int = await redis.zcount(_keys([model] if model else [])[-1], time.time(), "+inf")
    return count


def _keys(models: Sequence[str]) -> list[str]:
    return [_KEY, *(f"{_KEY}:{model}" for model in models)]
