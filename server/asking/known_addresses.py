"""Names of servers as addresses, the last answer kept: a name server that is silent takes no question with it.

One of containers answers nothing, or "try again", for seconds while a container beside them comes or goes; the address
that it gave before is right all the same. Who moved is found as soon as it answers again.
"""

import asyncio
import socket
from ipaddress import ip_address

# Of a name whose address is known: an answer takes a millisecond, or does not come.
_PATIENCE_S = 0.25


class KnownAddresses:
    """Looks up one name at a time, however many ask for it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._asking: dict[tuple[str, int], asyncio.Task[tuple[str, ...]]] = {}

    async def look_up(self, host: str, port: int) -> tuple[str, ...]:
        """Addresses in the order in which they are to be tried; `host` itself where it is one.

        Raises:
            OSError: the name was never known, and is not now.
        """
        if _is_address(host):
            return (host,)
        task = self._asked(host, port)
        known = self._known.get((host, port))
        if known is None:
            return await asyncio.shield(task)
        await asyncio.wait([task], timeout=_PATIENCE_S)
        return self._known[host, port]

    def close(self) -> None:
        """Wait for no name server any more."""
        for task in self._asking.values():
            task.cancel()

    def _asked(self, host: str, port: int) -> asyncio.Task[tuple[str, ...]]:
        key = (host, port)
        if key not in self._asking:
            self._asking[key] = asyncio.create_task(self._ask(host, port))
            self._asking[key].add_done_callback(lambda task: self._forget(key, task))
        return self._asking[key]

    async def _ask(self, host: str, port: int) -> tuple[str, ...]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self._known[host, port] = addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
        return addresses

    def _forget(self, key: tuple[str, int], task: "asyncio.Task[tuple[str, ...]]") -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen; who asked knows what to do without an answer


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
