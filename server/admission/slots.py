"""Admission: work that would only wait is refused before it begins, and no tenant takes what others could come for."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import Overloaded

# A tenant may hold so many times what is still free. So one alone gets two thirds, and room is left for a second and a
# third, however greedy those before were; nobody has to know beforehand how many tenants will come. (The rule by which
# switches share a buffer among their ports: Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)
_TIMES_WHAT_IS_FREE = 2
_RETRY_AFTER_S = 2


class TenantSlots:
    """A bounded number of things at once; no queue, so nobody waits without knowing."""

    def __init__(self, size: int, what: str) -> None:
        """`what` is there too much, for the refusal: "uploads"."""
        self._free = size
        self._what = what
        self._held: Counter[str] = Counter()

    @contextmanager
    def one(self, tenant: str) -> Iterator[None]:
        """Hold a slot for the tenant.

        Raises:
            Overloaded: none is free, or the tenant holds its share.
        """
        if self._free <= 0:
            raise Overloaded(
                f"Too many {self._what} run at once, all tenants together; try again shortly.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._held[tenant] >= self._free * _TIMES_WHAT_IS_FREE:
            raise Overloaded(
                f"Your tenant already uses its share of concurrent {self._what}; wait for one to end, then try again.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._free -= 1
        self._held[tenant] += 1
        try:
            yield
        finally:
            self._free += 1
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]
