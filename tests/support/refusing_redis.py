"""A Redis that answers and takes no writes, as when it is full or has become a replica; it is mended afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from redis.asyncio import Redis

from server.machine.redis_server import free_loopback_port


@asynccontextmanager
async def refusing_writes(redis: Redis, why: Literal["full", "read_only"]) -> AsyncIterator[None]:
    """For the length of the block."""
    if why == "full":
        before = (await redis.config_get("maxmemory"))["maxmemory"]
        await redis.config_set("maxmemory", 1)
    else:
        await redis.execute_command("REPLICAOF", "127.0.0.1", str(free_loopback_port()))
    try:
        yield
    finally:
        if why == "full":
            await redis.config_set("maxmemory", before)
        else:
            await redis.execute_command("REPLICAOF", "NO", "ONE")
