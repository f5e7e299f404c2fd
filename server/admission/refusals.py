"""The pace at which a tenant is told that it wants too much: who asks again at once does not keep everybody busy."""

import asyncio
import time
from collections import OrderedDict

# What a page of a viewer, or a script that uploads a folder, meets at once is told at once.
_AT_ONCE = 32
_PER_S = 20.0
_LONGEST_WAIT_S = 5.0
_REMEMBERED = 10_000


class RefusalPace:
    """Of each tenant `at_once` refusals at once, then `per_s`; the others wait, each for its time, 5 s at most."""

    def __init__(self, at_once: int = _AT_ONCE, per_s: float = _PER_S) -> None:
        self._allowance_s = at_once / per_s
        self._every_s = 1 / per_s
        # Up to when each tenant's refusals are given out; the one asked for longest ago goes first.
        self._given_until: OrderedDict[str, float] = OrderedDict()

    async def wait(self, tenant: str) -> None:
        """Until this refusal may be sent."""
        await asyncio.sleep(self.wait_s(tenant, time.monotonic()))

    def wait_s(self, tenant: str, now_s: float) -> float:
        """How long this refusal waits; it counts from now on."""
        until = max(self._given_until.pop(tenant, now_s), now_s) + self._every_s
        wait_s = min(max(0.0, until - now_s - self._allowance_s), _LONGEST_WAIT_S)
        # Beyond the longest wait nothing more is owed: else a minute of it would be felt for an hour.
        self._given_until[tenant] = min(until, now_s + self._allowance_s + _LONGEST_WAIT_S)
        if len(self._given_until) > _REMEMBERED:
            self._given_until.popitem(last=False)
        return wait_s
