"""Rate limits: what a tenant, and each of its callers, may ask for in a minute, counted in Redis for all replicas.

A limit is a bucket that fills evenly (the generic cell rate algorithm of ATM, ITU-T I.371): after a minute's rest a
whole minute's worth may come at once, and nobody has to wait for a window to end. Requests and questions are counted
before they are answered. Uploaded bytes are counted when they have come, since nobody knows them before: an upload is
let in while no more than a minute's worth is owed, and a large one makes the next wait.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import structlog
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.errors import RateLimited

Counted = Literal["requests", "questions", "upload_bytes"]
_COUNTED: tuple[Counted, ...] = get_args(Counted)
_WORDS: dict[Counted, str] = {"requests": "requests", "questions": "questions", "upload_bytes": "uploaded bytes"}
_WINDOW_S = 60
# For each bucket (KEYS) its amount in a window and what is taken of it (ARGV): seconds that it is owed, before and with
# what is taken. Nothing is taken of any when one has not enough, unless ARGV[1] is 1. Time is Redis', the same for all.
_TAKE = """
    local clock = redis.call('TIME')
    local now, is_owed = clock[1] + clock[2] / 1e6, ARGV[1] == '1'
    local owed, full = {}, false
    for i, key in ipairs(KEYS) do
        local amount, taken = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
        local before = math.max(0, tonumber(redis.call('GET', key) or now) - now)
        local after = before + taken * 60 / amount
        if (taken > 0 and after or before) > 60 + 1e-6 then full = true end
        owed[2 * i - 1], owed[2 * i] = before, after
    end
    for i, key in ipairs(KEYS) do
        if (is_owed or not full) and owed[2 * i] > 0 then
            redis.call('SET', key, string.format('%.6f', now + owed[2 * i]), 'PX', math.ceil(owed[2 * i] * 1000) + 1)
        end
        owed[2 * i - 1], owed[2 * i] = tostring(owed[2 * i - 1]), tostring(owed[2 * i])
    end
    return owed
"""

log = structlog.get_logger(__name__)


class RateLimits(BaseModel):
    """In a minute; 0 is no limit, None is what everybody has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Annotated[int | None, Field(ge=0)] = None
    questions: Annotated[int | None, Field(ge=0)] = None
    upload_bytes: Annotated[int | None, Field(ge=0)] = None

    def amount(self, counted: Counted) -> int | None:
        """What it says of one of the three."""
        found: int | None = getattr(self, counted)
        return found


@dataclass(frozen=True)
class _Bucket:
    """One limit of one tenant or caller."""

    key: str
    counted: Counted
    amount: int
    whose: str


class RatePace:
    """Lets requests in, or says when to come back."""

    def __init__(
        self, redis: Redis, everybody: RateLimits, tenants: Mapping[str, RateLimits], callers: RateLimits
    ) -> None:
        """`everybody` is for each tenant that `tenants` does not name, `callers` for each key or subject of a token."""
        self._everybody = everybody
        self._tenants = tenants
        self._callers = callers
        self._take = redis.register_script(_TAKE)
        said = [everybody, callers, *tenants.values()]
        self._is_on = any(limits.amount(counted) for limits in said for counted in _COUNTED)

    async def admit(self, tenant: str, caller: str, also: Counted | None) -> dict[str, str]:
        """Count a request, and `also` what it is; the `RateLimit-` headers of its answer, none where there is no limit.
        `caller` is a digest that names the key or the subject. While Redis does not answer, everybody is let in.

        Raises:
            RateLimited: that is too much for this minute; nothing was counted.
        """
        if not self._is_on:
            return {}
        wanted: dict[Counted, int] = {"requests": 1}
        if also is not None:
            wanted[also] = 0 if also == "upload_bytes" else 1
        buckets = [bucket for counted in wanted for bucket in self._buckets(tenant, caller, counted)]
        found = await self._ask(buckets, wanted, is_owed=False)
        if found is None:
            return {}
        for bucket, (before, after) in zip(buckets, found, strict=True):
            too_much_s = (after if wanted[bucket.counted] else before) - _WINDOW_S
            if too_much_s > 1e-6:
                raise RateLimited(
                    f"{bucket.whose} may send {bucket.amount} {_WORDS[bucket.counted]} a minute; wait, or ask the "
                    "operator for more.",
                    retry_after_s=math.ceil(too_much_s - 1e-6),
                    limit=_headers(bucket.amount, _WINDOW_S),
                )
        shown = [(bucket, after) for bucket, (_, after) in zip(buckets, found, strict=True)]
        bucket, owed_s = max(shown, key=lambda it: it[1])
        return _headers(bucket.amount, owed_s)

    async def count_uploaded(self, tenant: str, caller: str, size_bytes: int) -> None:
        """So many bytes have come, whatever the limit."""
        if not self._is_on or not size_bytes:
            return
        buckets = self._buckets(tenant, caller, "upload_bytes")
        await self._ask(buckets, {"upload_bytes": size_bytes}, is_owed=True)

    def _buckets(self, tenant: str, caller: str, counted: Counted) -> list[_Bucket]:
        own = self._tenants.get(tenant, self._everybody).amount(counted)
        of_tenant = own if own is not None else self._everybody.amount(counted)
        of_caller = self._callers.amount(counted)
        begin = f"eyepiece:{{{tenant}}}:rate:{counted}"
        found = [
            _Bucket(f"{begin}:tenant", counted, of_tenant or 0, "Your tenant"),
            _Bucket(f"{begin}:caller:{caller}", counted, of_caller or 0, "Your key or token"),
        ]
        return [bucket for bucket in found if bucket.amount]

    async def _ask(
        self, buckets: list[_Bucket], wanted: Mapping[Counted, int], *, is_owed: bool
    ) -> list[tuple[float, float]] | None:
        """Seconds owed of each bucket, before and after; None where there is no bucket, or Redis does not answer."""
        if not buckets:
            return None
        amounts = [number for it in buckets for number in (it.amount, wanted[it.counted])]
        try:
            owed = await self._take(keys=[it.key for it in buckets], args=[int(is_owed), *amounts])
        except RedisError as error:
            log.warning("rate_not_counted", error=type(error).__name__)
            return None
        seconds = [float(it) for it in owed]
        return list(zip(seconds[::2], seconds[1::2], strict=True))


def _headers(amount: int, owed_s: float) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-06 has them: whole seconds until all of the limit is there again."""
    left = max(0, int(amount * (1 - owed_s / _WINDOW_S) + 1e-6))
    return {
        "RateLimit-Limit": str(amount),
        "RateLimit-Remaining": str(left),
        "RateLimit-Reset": str(math.ceil(owed_s - 1e-6)),
    }
