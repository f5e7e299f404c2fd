"""Probes whether Redis takes writes: a full one and a read-only one answer every other request."""

import time
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

# Without an expiry: a key that may be pushed out could make room for itself, and a full Redis would seem to have some.
_KEY = "eyepiece:write-probe"
OK: Final = "ok"
UNAVAILABLE: Final = "unavailable"


async def write_state(redis: Redis) -> str:
    """`ok`, `full`, `read_only` (a replica, or a server that cannot save), or `unavailable`."""
    try:
        await redis.set(_KEY, int(time.time()))
    except OutOfMemoryError:
        return "full"
    except ResponseError:  # READONLY, MISCONF, NOREPLICAS, …
        return "read_only"
    except RedisError:
        return UNAVAILABLE
    return OK
