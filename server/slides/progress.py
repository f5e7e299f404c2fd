"""Progress of a slide while it is encoded, as a Redis stream that a client can resume.

Events: `progress {stage, done, total}` … then `ready` or `failed {code, detail}`. The stream's entry id is the
event's id, so `Last-Event-ID` goes straight back to Redis.
"""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.errors import QueueUnavailable

log = structlog.get_logger(__name__)
# Old progress is of no use to anyone; the last entries of a slide always fit.
_KEPT_EVENTS = 500
# Redis' own bound is 20 digits, some of which do not fit its 64 bits; times in ms have 13.
_EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
# Below the socket timeout of the Redis client, or every quiet wait would end in an error.
_WAIT_MS = 2_000


@dataclass(frozen=True)
class Event:
    """One server-sent event; `id` is None where it cannot be resumed from."""

    name: str
    data: dict[str, Any]
    id: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows for this encode."""
        return self.name in ("ready", "failed")


class ProgressLog:
    """Appends and follows the events of a slide, those of each model by themselves ("" is the default); every key is
    under its tenant."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    async def append(self, tenant: str, slide_id: str, event: Event, model: str = "") -> None:
        """Add an event; the stream forgets its oldest ones and, unused, itself."""
        key = _key(tenant, slide_id, model)
        fields: dict[Any, Any] = {"name": event.name, "data": orjson.dumps(event.data)}
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(key, fields, maxlen=_KEPT_EVENTS, approximate=False)
            pipe.expire(key, self._ttl_s)
            await pipe.execute()

    async def forget(self, tenant: str, slide_id: str, model: str = "") -> None:
        """Drop the events: the slide is deleted, or starts again."""
        await self._redis.delete(_key(tenant, slide_id, model))

    async def last(self, tenant: str, slide_id: str) -> Event | None:
        """The newest event, if any is remembered."""
        entries: Any = await self._redis.xrevrange(_key(tenant, slide_id), count=1)
        return _event(*entries[0]) if entries else None

    async def follow(
        self, tenant: str, slide_id: str, after: str, model: str = ""
    ) -> AsyncGenerator[Event | None, None]:
        """Events behind the id `after`; None every few seconds without one, so that the caller can look around.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        key = _key(tenant, slide_id, model)
        while True:
            try:
                answer: Any = await self._redis.xread({key: after}, block=_WAIT_MS)
            except RedisError as error:
                raise QueueUnavailable("The events cannot be read; follow them again shortly.") from error
            entries = answer[0][1] if answer else []
            if not entries:
                yield None
            for entry_id, fields in entries:
                after = entry_id.decode()
                event = _event(entry_id, fields)
                # None for an entry that cannot be read: if it was the outcome, the caller finds that in the record.
                yield event


def valid_event_id(text: str | None) -> str:
    """The id to resume from; anything that is not one of ours starts from the beginning."""
    return text if text and _EVENT_ID.fullmatch(text) else "0-0"


def _event(entry_id: bytes, fields: dict[bytes, bytes]) -> Event | None:
    """The event of a stream's entry, None when it is none of ours."""
    try:
        data = orjson.loads(fields[b"data"])
        if isinstance(data, dict):
            return Event(fields[b"name"].decode(), data, entry_id.decode())
    except (KeyError, ValueError):
        pass
    log.warning("event_unreadable")
    return None


def _key(tenant: str, slide_id: str, model: str = "") -> str:
    return f"eyepiece:{{{tenant}}}:events:{slide_id}{model and f':{model}'}"
