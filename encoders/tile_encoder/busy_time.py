"""Seconds that something has worked and has waited for work, up to this moment."""

import time


class BusyTime:
    """Begins idle. One thread switches it, any may read it."""

    def __init__(self) -> None:
        self._state = (False, time.monotonic(), 0.0, 0.0)

    def switch(self, busy: bool) -> None:
        """From now on it works, or waits."""
        self._state = (busy, *self._now())

    @property
    def busy_s(self) -> float:
        """Seconds of work so far."""
        return self._now()[1]

    @property
    def idle_s(self) -> float:
        """Seconds of waiting so far."""
        return self._now()[2]

    def _now(self) -> tuple[float, float, float]:
        # Read once: the tuple is replaced as a whole.
        busy, since, busy_s, idle_s = self._state
        now = time.monotonic()
        return (now, busy_s + now - since, idle_s) if busy else (now, busy_s, idle_s + now - since)
