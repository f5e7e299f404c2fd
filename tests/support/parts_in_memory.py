"""Parts of a slide's features in memory, for tests of who writes and reads them."""

from concurrent.futures import Future


class PartsInMemory:
    """Takes every part at once, until `slow` leaves writes pending or `full` refuses them."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.slow = False
        self.full = False
        self.writes: list[str] = []
        self._pending: list[tuple[str, bytes, Future[bool]]] = []

    def names(self) -> list[str]:
        """What was taken."""
        return list(self.stored)

    def read(self, name: str) -> bytes | None:
        """As it was taken."""
        return self.stored.get(name)

    def write(self, name: str, content: bytes) -> Future[bool]:
        """Notes that somebody wants to write."""
        self.writes.append(name)
        future: Future[bool] = Future()
        self._pending.append((name, content, future))
        if not self.slow:
            self.catch_up()
        return future

    def catch_up(self) -> None:
        """End what is pending."""
        pending, self._pending = self._pending, []
        for name, content, future in pending:
            if not self.full:
                self.stored[name] = content
            future.set_result(not self.full)
