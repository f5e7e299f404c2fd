"""Turns: work that is worth waiting for is begun tenant by tenant, not in the order in which it came."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.errors import Overloaded

_RETRY_AFTER_S = 5


class TenantTurns:
    """At most `at_once` things run at once, `per_tenant` of one tenant; the others wait in a line for each tenant."""

    def __init__(self, at_once: int, per_tenant: int, most_waiting: int, what: str) -> None:
        """`most_waiting` of one tenant wait; `what` there is too much of then, for the refusal: "thumbnails"."""
        self._free = at_once
        self._per_tenant = per_tenant
        self._most_waiting = most_waiting
        self._what = what
        self._running: Counter[str] = Counter()
        # In the order of whose turn is next; no line is empty.
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[bool]:
        """Wait for a turn of the tenant and hold it; gives whether it is all that the tenant wants at this moment.

        Raises:
            Overloaded: the tenant's line is full.
        """
        line = self._lines.setdefault(tenant, deque())
        if len(line) >= self._most_waiting and not self._may_begin(tenant):
            raise Overloaded(
                f"Your tenant already has too many {self._what} waiting; try again shortly.",
                retry_after_s=_RETRY_AFTER_S,
            )
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        self._begin_next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():  # else it was given to us in the same moment
                self._leave_line(tenant, turn)
            else:
                self._end(tenant)
            raise
        try:
            yield self._running[tenant] == 1 and tenant not in self._lines
        finally:
            self._end(tenant)

    def _may_begin(self, tenant: str) -> bool:
        return self._free > 0 and self._running[tenant] < self._per_tenant

    def _begin_next(self) -> None:
        """Give turns as long as there are any: to who runs least, of these to whose last turn is longest ago."""
        while may_begin := [tenant for tenant in self._lines if self._may_begin(tenant)]:
            tenant = min(may_begin, key=self._running.__getitem__)
            turn = self._lines[tenant][0]
            self._leave_line(tenant, turn)
            if turn.cancelled():  # in this moment; its task has not been told yet
                continue
            turn.set_result(None)
            self._free -= 1
            self._running[tenant] += 1
            if tenant in self._lines:
                self._lines.move_to_end(tenant)

    def _leave_line(self, tenant: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(tenant, deque())
        if turn in line:
            line.remove(turn)
        if not line:
            self._lines.pop(tenant, None)

    def _end(self, tenant: str) -> None:
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        self._begin_next()
