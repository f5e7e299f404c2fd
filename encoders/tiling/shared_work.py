"""Work that whichever thread comes to it first does, once."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from threading import Lock


class SharedWork:
    """A function to be called once by some thread."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.end: Future[None] = Future()
        self._function = function
        self._begun = Lock()

    def do(self) -> None:
        """Calls the function unless a thread has begun that; what it raises is raised by `finish`."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits for it
            self.end.set_exception(error)
        else:
            self.end.set_result(None)


def finish(works: Sequence[SharedWork]) -> None:
    """Does what no other thread has begun, waits for the rest, and raises the error of the first that failed."""
    for work in works:
        work.do()
    wait([work.end for work in works])  # wakes this thread once, not for each
    for work in works:
        work.end.result()
