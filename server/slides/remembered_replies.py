"""What was answered to requests with an `Idempotency-Key`, in Redis for a day, so that a request that is sent again is
answered again and done once.

An answer belongs to a slide and goes with it. A request that is being answered holds its key for a quarter of an hour,
unless its process dies meanwhile: then the key is free after that.
"""

import hashlib
import secrets
from dataclasses import dataclass

import orjson
from redis.asyncio import Redis

from server.errors import IdempotencyKeyReused, RequestInFlight

KEPT_S = 86_400
# Longer than any answer takes.
IN_FLIGHT_S = 900
# Writes ARGV[2] for ARGV[3] seconds, or deletes where that is empty, while the value is still ARGV[1].
_IF_STILL = """
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
    return 1
"""


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Reservation:
    """A key that is ours until its request is answered."""

    key: str
    value: bytes
    request: str


class RememberedReplies:
    """Replies of all tenants by the clients' keys."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._if_still = redis.register_script(_IF_STILL)

    async def reserve(self, tenant: str, slide_id: str, idempotency_key: str, request: str) -> Reservation | Reply:
        """The key for this request (a digest of all of it), or what it was answered before.

        Raises:
            RequestInFlight: the same request is being answered.
            IdempotencyKeyReused: the key came with another request.
        """
        key = f"eyepiece:{{{tenant}}}:idempotency:{hashlib.sha256(idempotency_key.encode()).hexdigest()}"
        value = orjson.dumps({"request": request, "by": secrets.token_hex(8)})
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(key)
            pipe.set(key, value, nx=True, ex=IN_FLIGHT_S)
            pipe.sadd(_of_slide(tenant, slide_id), key)
            pipe.expire(_of_slide(tenant, slide_id), KEPT_S)
            before, *_ = await pipe.execute()
        if before is None:
            return Reservation(key, value, request)
        known = orjson.loads(before)
        if known["request"] != request:
            raise IdempotencyKeyReused("This Idempotency-Key came with another request; use a new key for each.")
        if "status" not in known:
            raise RequestInFlight(
                "The request with this Idempotency-Key is still being answered; send it again shortly.",
                retry_after_s=2,
            )
        return Reply(known["status"], known["headers"], known["body"])

    async def keep(self, reservation: Reservation, reply: Reply) -> None:
        """The request was answered."""
        told = {"status": reply.status, "headers": reply.headers, "body": reply.body}
        value = orjson.dumps({"request": reservation.request, **told})
        await self._if_still(keys=[reservation.key], args=[reservation.value, value, KEPT_S])

    async def release(self, reservation: Reservation) -> None:
        """The request came to nothing: it may be sent again."""
        await self._if_still(keys=[reservation.key], args=[reservation.value, "", 0])

    async def forget_slide(self, tenant: str, slide_id: str) -> None:
        """What was answered about a slide that is deleted."""
        keys = await self._redis.smembers(_of_slide(tenant, slide_id))
        await self._redis.delete(_of_slide(tenant, slide_id), *keys)


def _of_slide(tenant: str, slide_id: str) -> str:
    return f"eyepiece:{{{tenant}}}:idempotent:{slide_id}"
