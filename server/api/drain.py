"""Leaving without breaking anything: readiness off → notice → new work refused → what runs ends → exit.

    SIGTERM ── not ready ── drain_notice_s ── refusing (503) ── nothing runs any more, or shutdown_grace_s ── exit

The notice is for load balancers, which learn from /readyz and only every few seconds. What still runs at the end of
the grace is told so (`draining`) before the connection closes. A second signal skips the waiting.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.connections import BoundedProtocol
from server.errors import Draining

log = structlog.get_logger(__name__)
# For the last words of what was cut to reach their clients.
_LAST_WORDS_S = 0.5
_RETRY_AFTER_S = 2
# Half a second.
_TICKS_BETWEEN_LOOKS = 5
# Asked by those who must learn that we are leaving.
_ALWAYS_ANSWERED = frozenset({"/livez", "/readyz", "/metrics"})


class Drain:
    """What every part may ask about leaving. Lives on the event loop; nothing here is for threads."""

    def __init__(self) -> None:
        self.begun = False
        self.refusing = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._cut: asyncio.Future[None] | None = None

    @property
    def cut(self) -> "asyncio.Future[None]":
        """Done when what still runs has to end at once."""
        if self._cut is None:
            self._cut = asyncio.get_running_loop().create_future()
        return self._cut

    @contextmanager
    def one_request(self) -> Iterator[None]:
        """A request that runs; leaving waits for it."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def leave(self, notice_s: float, grace_s: float) -> None:
        """Returns when nothing runs any more, at the latest a moment after `grace_s`."""
        self.begun = True
        log.info("draining", count=self._running)
        notice_s = min(notice_s, grace_s)
        await asyncio.sleep(notice_s)
        self.refusing = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s - notice_s)
        except TimeoutError:
            log.warning("drain_cut", count=self._running)
            self.cut.set_result(None)
            await asyncio.sleep(_LAST_WORDS_S)


class DrainGate:
    """ASGI middleware: counts what runs; once refusing, answers 503 to everything but health."""

    def __init__(self, app: ASGIApp, drain: Drain, refusal: Callable[[Request, Draining], Response]) -> None:
        """`refusal` makes the response in the words of the route that was asked."""
        self._app = app
        self._drain = drain
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        sending = self._closing(send)
        if self._drain.refusing:
            error = Draining("This server is shutting down; ask another one, or again.", retry_after_s=_RETRY_AFTER_S)
            await self._refusal(Request(scope), error)(scope, receive, sending)
            return
        with self._drain.one_request():
            await self._app(scope, receive, sending)

    def _closing(self, send: Send) -> Send:
        """While leaving, no connection is kept for a next request."""

        async def with_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.begun:
                message.setdefault("headers", []).append((b"connection", b"close"))
            await send(message)

        return with_close


class DrainingServer(uvicorn.Server):
    """uvicorn, which would close its sockets at the first signal; this one leaves by the steps above.

    Whoever does what SIGTERM asks ends with exit code 0. uvicorn would end as if killed, by raising the signal again;
    that is left to Ctrl-C, a second signal, and one that comes before anything is served.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, notice_s: float, grace_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._notice_s = notice_s
        self._grace_s = grace_s
        self._asked_by: int | None = None
        self._leaving: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks, a second one ends the waiting. Runs between any two instructions: it only notes."""
        if self._asked_by is not None or not self.started:
            super().handle_exit(sig, frame)
        self._asked_by = sig

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's look around, ten times a second; True ends the server."""
        if self._asked_by is not None and self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(self._asked_by))
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.end_if_overdue(time.monotonic())
        return await super().on_tick(counter)

    async def _leave(self, sig: int) -> None:
        await self._drain.leave(self._notice_s, self._grace_s)
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, None)
