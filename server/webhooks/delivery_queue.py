"""What is to be delivered to one endpoint, in Redis: due at a time, leased while somebody tries, or dead.

A delivery is taken with a lease and removed when it has succeeded. Whoever dies in between leaves it there, and when
the lease ends another process tries again, so nothing is lost and the same event may come twice. No key but the
memory of what was added has a lifetime: Redis may drop those that have one when its memory is full.
"""

import random
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog
from redis.asyncio import Redis

from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.event import WebhookEvent

log = structlog.get_logger(__name__)
# Beyond an attempt's longest time (server.webhooks.post_event).
LEASE_S = 60.0
_MOST_WAITING = 100_000
MOST_DEAD = 1_000
# A worker that was killed tells of the same encode when it is back.
_REMEMBERED_S = 86_400
_FIRST_WAIT_S, _LONGEST_WAIT_S, _FACTOR = 5.0, 6 * 3_600.0, 3.0

_NOW = "local clock = redis.call('TIME') local now = clock[1] * 1000 + math.floor(clock[2] / 1000) "
_DUE, _HELD, _DEAD, _DEAD_ORDER = "due", "held", "dead", "dead-order"
# KEYS: those four, and the memory of this event. ARGV: id, delivery, how many may wait, how long to remember.
_ADD = (
    _NOW
    + """
    if redis.call('EXISTS', KEYS[5]) == 1 then return 'known' end
    if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then return 'full' end
    redis.call('SET', KEYS[5], '1', 'EX', ARGV[4])
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
    redis.call('ZADD', KEYS[1], now, ARGV[1])
    return 'added'
"""
)
# ARGV: how many, and for how many milliseconds.
_TAKE = (
    _NOW
    + """
    local found = {}
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
        local held = redis.call('HGET', KEYS[2], id)
        if held then
            redis.call('ZADD', KEYS[1], now + ARGV[2], id)
            found[#found + 1] = held
        else
            redis.call('ZREM', KEYS[1], id)
        end
    end
    return found
"""
)
# ARGV: id, delivery, wait in milliseconds. Nothing when somebody else has delivered it meanwhile.
_PUT_BACK = (
    _NOW
    + """
    if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
    return redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
"""
)
# ARGV: id, delivery, how many dead are kept. The number of those that go for it.
_BURY = (
    _NOW
    + """
    redis.call('HDEL', KEYS[2], ARGV[1])
    redis.call('ZREM', KEYS[1], ARGV[1])
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
    redis.call('ZADD', KEYS[4], now, ARGV[1])
    local gone = redis.call('ZRANGE', KEYS[4], 0, -1 - tonumber(ARGV[3]))
    for _, id in ipairs(gone) do
        redis.call('ZREM', KEYS[4], id)
        redis.call('HDEL', KEYS[3], id)
    end
    return #gone
"""
)
# ARGV: id, delivery.
_REVIVE = (
    _NOW
    + """
    if redis.call('HDEL', KEYS[3], ARGV[1]) == 0 then return 0 end
    redis.call('ZREM', KEYS[4], ARGV[1])
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
    redis.call('ZADD', KEYS[1], now, ARGV[1])
    return 1
"""
)


@dataclass(frozen=True)
class Delivery:
    """An event for one endpoint, how often it was tried, and how the last attempt failed: its time in RFC 3339, a word
    and the HTTP status where there was an answer."""

    event: WebhookEvent
    attempts: int = 0
    tried_at: str | None = None
    reason: str | None = None
    status: int | None = None


def wait_s(attempts: int, retry_after_s: float = 0.0) -> float:
    """How long after so many failed attempts: from 5 s three times as long each time, up to 6 hours, or longer when the
    receiver asks for that, within the same bound; a quarter more or less, so that not all come back at once."""
    grown = _FIRST_WAIT_S * _FACTOR ** min(attempts - 1, 30)
    asked = max(min(grown, _LONGEST_WAIT_S), min(retry_after_s, _LONGEST_WAIT_S))
    return asked * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing


class DeliveryQueue:
    """The deliveries of one endpoint; all API replicas work on it."""

    def __init__(self, redis: Redis, endpoint: WebhookEndpoint) -> None:
        self.endpoint = endpoint
        self._redis = redis
        begin = f"eyepiece:{{{endpoint.tenant}}}:webhooks:{endpoint.name}"
        self._keys = [f"{begin}:{part}" for part in (_DUE, _HELD, _DEAD, _DEAD_ORDER)]
        self._seen = f"{begin}:seen"
        self._add, self._take = redis.register_script(_ADD), redis.register_script(_TAKE)
        self._put_back, self._bury = redis.register_script(_PUT_BACK), redis.register_script(_BURY)
        self._revive = redis.register_script(_REVIVE)

    async def add(self, event: WebhookEvent) -> None:
        """An event to deliver as soon as may be, unless it was added before; where too many wait it is dead at once."""
        delivery = Delivery(event)
        keys = [*self._keys, f"{self._seen}:{event.id}"]
        answer = await self._add(keys=keys, args=[event.id, _stored(delivery), _MOST_WAITING, _REMEMBERED_S])
        if answer == b"full":
            await self.bury(Delivery(event, reason="queue_full"))

    async def take(self, count: int) -> list[Delivery]:
        """Up to so many that are due, leased for LEASE_S."""
        found = await self._take(keys=self._keys, args=[count, int(LEASE_S * 1000)])
        return [delivery for delivery in map(_read, found) if delivery is not None]

    async def done(self, delivery: Delivery) -> None:
        """It was delivered."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(self._keys[1], delivery.event.id)
            pipe.zrem(self._keys[0], delivery.event.id)
            await pipe.execute()

    async def put_back(self, delivery: Delivery, after_s: float) -> None:
        """To be tried again."""
        await self._put_back(keys=self._keys, args=[delivery.event.id, _stored(delivery), int(after_s * 1000)])

    async def bury(self, delivery: Delivery) -> None:
        """Not to be tried again by itself. Beyond MOST_DEAD the oldest go."""
        gone = await self._bury(keys=self._keys, args=[delivery.event.id, _stored(delivery), MOST_DEAD])
        if gone:
            log.error("webhook_dead_letters_dropped", webhook=self.endpoint.name, count=gone)

    async def counts(self) -> tuple[int, int]:
        """How many wait or are being tried, and how many are dead."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hlen(self._keys[1])
            pipe.hlen(self._keys[2])
            waiting, dead = await pipe.execute()
        return int(waiting), int(dead)

    async def dead(self) -> list[Delivery]:
        """Dead letters, the newest first."""
        ids: Any = await self._redis.zrevrange(self._keys[3], 0, -1)
        if not ids:
            return []
        found = await cast(Any, self._redis.hmget(self._keys[2], ids))
        return [delivery for delivery in map(_read, found) if delivery is not None]

    async def replay(self, event_ids: frozenset[str] | None) -> int:
        """Dead letters to be tried anew with all their attempts, all of them for None; how many."""
        replayed = 0
        for delivery in reversed(await self.dead()):
            event = delivery.event
            if event_ids is None or event.id in event_ids:
                replayed += await self._revive(keys=self._keys, args=[event.id, _stored(Delivery(event))])
        return replayed


def _stored(delivery: Delivery) -> bytes:
    return orjson.dumps(delivery)


def _read(stored: bytes | None) -> Delivery | None:
    """None for what is gone, or cannot be read; then its lease holds the place of it."""
    if stored is None:
        return None
    try:
        said = orjson.loads(stored)
        return Delivery(**said | {"event": WebhookEvent(**said["event"])})
    except (ValueError, TypeError, KeyError):
        log.error("webhook_delivery_unreadable")
        return None
