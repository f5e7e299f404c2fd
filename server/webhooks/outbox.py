"""Events on their way from whoever saw what happened, a worker mostly, to the API, which knows who is to be told.

A worker knows no receiver and no secret: it opens slides, and what opens slides should hold nothing worth stealing.
"""

from dataclasses import asdict
from typing import Any, cast

import orjson
import structlog
from redis.asyncio import Redis

from server.webhooks.event import WebhookEvent

log = structlog.get_logger(__name__)
_KEY = "eyepiece:webhooks:events"
# More than can be encoded in days without an API; the oldest go.
_MOST = 100_000


class Outbox:
    """A list in Redis that any process adds to, and an API takes from."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def add(self, event: WebhookEvent) -> None:
        """Keep an event until it was handed on.

        Raises:
            RedisError: it is not kept.
        """
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.lpush(_KEY, orjson.dumps(asdict(event)))
            pipe.ltrim(_KEY, 0, _MOST - 1)
            waiting, _ = await pipe.execute()
        if waiting > _MOST:
            log.error("webhook_events_dropped", count=waiting - _MOST)

    async def oldest(self, count: int) -> list[tuple[bytes, WebhookEvent | None]]:
        """Up to so many events, oldest first, each as it is stored and as it reads: None for what cannot be read. They
        stay until they are removed."""
        found = await cast(Any, self._redis.lrange(_KEY, -count, -1))
        return [(stored, read_event(stored)) for stored in reversed(found)]

    async def remove(self, stored: bytes) -> None:
        """It was handed on."""
        await cast(Any, self._redis.lrem(_KEY, -1, cast(Any, stored)))

    async def clear(self) -> None:
        """There is nobody to be told."""
        await self._redis.delete(_KEY)


def read_event(stored: bytes) -> WebhookEvent | None:
    """The event in JSON of ours; None for what is none."""
    try:
        return WebhookEvent(**orjson.loads(stored))
    except (ValueError, TypeError):
        log.error("webhook_event_unreadable")
        return None
