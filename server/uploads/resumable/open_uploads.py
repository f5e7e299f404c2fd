"""How many uploads of a tenant are open: each costs a record in the store, whatever its size."""

from redis.asyncio import Redis

from server.errors import Overloaded

_TTL_S = 2 * 86_400
_RETRY_AFTER_S = 60


class OpenUploads:
    """A counter for each tenant, set right by every sweep (`server.upkeep.upload_sweep`)."""

    def __init__(self, redis: Redis, most_per_tenant: int) -> None:
        self._redis = redis
        self._most = most_per_tenant

    async def begin(self, tenant: str) -> None:
        """One more; raises Overloaded when the tenant has as many as it may."""
        count = await self._redis.incr(_key(tenant))
        await self._redis.expire(_key(tenant), _TTL_S)
        if count > self._most:
            await self.end(tenant, 1)
            raise Overloaded(
                f"Your tenant has {self._most} unfinished uploads, which is as many as it may; finish or delete some.",
                retry_after_s=_RETRY_AFTER_S,
            )

    async def end(self, tenant: str, count: int) -> None:
        """So many are finished, or gone."""
        await self._redis.decrby(_key(tenant), count)

    async def correct(self, tenant: str, count: int) -> None:
        """So many were found in the store."""
        await self._redis.set(_key(tenant), count, ex=_TTL_S)


def _key(tenant: str) -> str:
    return f"eyepiece:open-uploads:{{{tenant}}}"
