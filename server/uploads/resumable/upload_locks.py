"""One writer at a time for each upload, over all replicas: locks in Redis.

A client whose line broke comes back on a new one while its old request still waits here for bytes. So who wants a lock
says so, and a holder to whom nothing has come for a moment gives way. A holder that still receives keeps it: the other
one is told that somebody writes already.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from server.errors import UploadLocked
from server.to_the_end import stop_beating

_LEASE_S = 15.0
_LOOK_EVERY_S = 0.5
# Longer than a line that works is silent, shorter than the patience of whoever waits.
_SILENT_S = 1.0
_PATIENCE_S = 3.0
_RETRY_AFTER_S = 2


@dataclass
class Hold:
    """A lock that is held. `stop` is called when it has to end at once: give it something that interrupts. `is_over`
    is true from then on."""

    stop: Callable[[], None] = lambda: None
    is_over: bool = False
    heard_at_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def heard(self) -> None:
        """Something has come."""
        self.heard_at_s = asyncio.get_running_loop().time()

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for a moment."""
        return asyncio.get_running_loop().time() - self.heard_at_s > _SILENT_S


class UploadLocks:
    """Locks by tenant and name: an upload's id, or the slide in the making."""

    def __init__(self, redis: Redis, is_leaving: Callable[[], bool]) -> None:
        """`is_leaving`: whether this process is to end, and writers with it."""
        self._redis = redis
        self._is_leaving = is_leaving

    @asynccontextmanager
    async def held(
        self, tenant: str, name: str, patience_s: float = _PATIENCE_S, *, to_the_end: bool = False
    ) -> AsyncIterator[Hold]:
        """Hold the lock; with `to_the_end` also where nothing is heard and somebody waits: a slide is being made.

        Raises:
            UploadLocked: somebody else has it and goes on.
        """
        key = f"eyepiece:{{{tenant}}}:upload:{name}"
        lock = self._redis.lock(key, timeout=_LEASE_S, sleep=0.05)
        if not await lock.acquire(blocking=False):
            await self._redis.set(f"{key}:wanted", 1, px=int(max(patience_s, 0.1) * 1000))
            if not await lock.acquire(blocking_timeout=patience_s):
                raise UploadLocked(
                    "Another request is writing to this upload, or is making a slide of it; ask again shortly.",
                    retry_after_s=_RETRY_AFTER_S,
                )
        hold = Hold()
        watching = asyncio.create_task(self._watch(lock, f"{key}:wanted", hold, to_the_end))
        try:
            yield hold
        finally:
            await stop_beating(watching)
            with suppress(LockError, RedisError):  # it runs out by itself
                await lock.release()

    async def _watch(self, lock: Lock, wanted: str, hold: Hold, to_the_end: bool) -> None:
        """Renew the lease; stop the holder when it is silent and somebody waits, and when the lease is lost."""
        misses = 0.0
        while misses < _LEASE_S / 2:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await lock.reacquire()
                misses = 0.0
                if to_the_end:
                    continue
                if self._is_leaving() or (hold.is_silent and await self._redis.exists(wanted)):
                    break
            except LockError:
                break
            except RedisError:
                misses += _LOOK_EVERY_S
        hold.is_over = True
        hold.stop()
