"""Presence of warm encoder workers in Redis: a sorted set of names by the time at which each expires."""

import time

from redis.asyncio import Redis

_KEY = "eyepiece:workers"
_VALID_S = 15.0
ANNOUNCE_EVERY_S = 5.0


async def announce_worker(redis: Redis, worker_id: str) -> None:
    """Say that this worker is warm; good for three missed announcements."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zadd(_KEY, {worker_id: time.time() + _VALID_S})
        pipe.zremrangebyscore(_KEY, 0, time.time())
        await pipe.execute()


async def withdraw_worker(redis: Redis, worker_id: str) -> None:
    """Say that this worker is going."""
    await redis.zrem(_KEY, worker_id)


async def count_workers(redis: Redis) -> int:
    """How many workers are warm."""
    count: int = await redis.zcount(_KEY, time.time(), "+inf")
    return count
