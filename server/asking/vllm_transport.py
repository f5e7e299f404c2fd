"""HTTP/1.1 to vLLM as an httpx transport: asyncio's connections and llhttp, which uvicorn parses requests with too.

Each token of an answer is a piece of a chunked body, and httpx' own transport (httpcore over anyio and h11) spends more
on it than the rest of the API does; docs/decisions/0030 has the numbers. Closing a connection is one call that never
waits, so a cancelled task cannot leave one half closed. No proxies, no HTTP/2, no HEAD, no redirects.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import cast

import httptools
import httpx

from server.asking.known_addresses import KnownAddresses

# Of one response: more stays in the kernel until it is read.
_HELD_BYTES = 256 * 1024
# vLLM's and a balancer's have some hundred bytes.
_HEAD_BYTES = 64 * 1024
# A lost packet of a name's lookup is sent again after five seconds (glibc), one of a connection's after one. A second
# attempt asks at once: the name server of containers loses packets whenever a container comes or goes. It may also be
# silent for longer than all attempts take, or refuse: an address that was known is used then (known_addresses.py).
_EARLY_ATTEMPTS_S = (1.0, 1.0)


class VllmTransport(httpx.AsyncBaseTransport):
    """A connection pool that keeps at most `max_idle` idle connections, each for `keepalive_s`."""

    def __init__(self, max_idle: int, keepalive_s: float) -> None:
        self._max_idle = max_idle
        self._keepalive_s = keepalive_s
        self._addresses = KnownAddresses()
        self._idle: dict[_Connection, tuple[bytes, bytes, int]] = {}
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Returns once the head of the response has arrived. Closing the response returns its connection to the pool,
        or closes the connection when the body was not read to its end. With the extension `new_connection` none that
        was used before is taken.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.ReadTimeout, httpx.WriteTimeout,
            httpx.RemoteProtocolError, httpx.LocalProtocolError.
        """
        timeout = request.extensions["timeout"]
        head, body = _head(request), await request.aread()
        origin = (request.url.raw_scheme, request.url.raw_host, request.url.port or _port_of(request.url))
        kept = None if request.extensions.get("new_connection") else self._take_idle(origin)
        connection = kept or await self._connect(request.url, origin[2], timeout["connect"])
        connection.is_patient = bool(request.extensions.get("patient"))
        try:
            await connection.ask((head, body), timeout["write"], timeout["read"])
        except BaseException:
            connection.abort()
            raise
        return httpx.Response(
            connection.status,
            headers=connection.headers,
            stream=_Body(connection, self, origin),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        """Close every connection, also those of answers that still run."""
        self._addresses.close()
        for connection in list(self._open):
            connection.abort()

    def give_up_silent(self, silent_s: float) -> None:
        """End the exchanges of which nothing has come for so long, but for those whose request has the extension
        `patient`; whoever waits gets httpx.ReadTimeout."""
        for connection in list(self._open):
            connection.give_up_if_silent(silent_s)

    def give_back(self, connection: "_Connection", origin: tuple[bytes, bytes, int]) -> None:
        """Keep a connection whose response was read to its end; close every other one."""
        if not connection.can_be_reused or len(self._idle) >= self._max_idle:
            connection.abort()
            return
        self._idle[connection] = origin
        connection.close_later(self._keepalive_s)

    def _take_idle(self, origin: tuple[bytes, bytes, int]) -> "_Connection | None":
        """The most recently used one that is open, so that the others may expire."""
        for connection in reversed(self._idle):
            if self._idle[connection] == origin and connection.can_be_reused:
                del self._idle[connection]
                return connection
        return None

    async def _connect(self, url: httpx.URL, port: int, timeout_s: float | None) -> "_Connection":
        """A new connection; raises httpx.ConnectTimeout once every attempt, the last of `timeout_s`, has run out."""
        for attempt_s in _EARLY_ATTEMPTS_S:
            with suppress(httpx.ConnectTimeout):
                return await self._connect_once(url, port, attempt_s)
        return await self._connect_once(url, port, timeout_s)

    async def _connect_once(self, url: httpx.URL, port: int, timeout_s: float | None) -> "_Connection":
        connection = _Connection(self)
        self._open.add(connection)
        try:
            async with asyncio.timeout(timeout_s):
                await self._reach(connection, url, port)
        except BaseException as error:
            connection.abort()
            self.forget(connection)
            if isinstance(error, TimeoutError):  # first: it is an OSError too
                raise httpx.ConnectTimeout("The connection was not made in time.") from error
            if isinstance(error, OSError):
                raise httpx.ConnectError("The connection could not be made.") from error
            raise
        return connection

    async def _reach(self, connection: "_Connection", url: httpx.URL, port: int) -> None:
        """The first address that takes the connection; raises what the last one said."""
        loop, tls = asyncio.get_running_loop(), self._tls if url.scheme == "https" else None
        name = url.host if tls else None
        failure = OSError("The name has no address.")
        for address in await self._addresses.look_up(url.host, port):
            try:
                await loop.create_connection(lambda: connection, address, port, ssl=tls, server_hostname=name)
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)

    def forget(self, connection: "_Connection") -> None:
        """Drop a connection that is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)


class _Body(httpx.AsyncByteStream):
    """The body of a response, piece by piece; bytes that arrive between two reads are one piece."""

    def __init__(self, connection: "_Connection", transport: VllmTransport, origin: tuple[bytes, bytes, int]) -> None:
        self._connection: _Connection | None = connection
        self._transport = transport
        self._origin = origin

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece."""
        if self._connection is not None and (piece := await self._connection.read()):
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Return the connection to the pool; never waits."""
        if self._connection is not None:
            self._transport.give_back(self._connection, self._origin)
            self._connection = None


class _Connection(asyncio.Protocol):
    """One connection with one exchange at a time; every event wakes the task that waits for it."""

    def __init__(self, transport: VllmTransport) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = transport
        self._wire: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._failure: httpx.TransportError | None = None
        self._write_paused = self._read_paused = False
        # The read timeout during an exchange, the keep-alive time between two.
        self._clock: asyncio.TimerHandle | None = None
        self.is_patient = False
        self._begin(None)
        self._is_complete = True

    def _begin(self, read_timeout_s: float | None) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._has_head = self._is_complete = self._ends_with_connection = self._stays_open = False
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._read_timeout_s = read_timeout_s
        self._waits_since = 0.0

    @property
    def can_be_reused(self) -> bool:
        """Whether the exchange is over on both sides and the server keeps the connection open."""
        wire = self._wire
        return (
            self._is_complete
            and self._stays_open
            and self._failure is None
            and wire is not None
            and not wire.is_closing()
            and not wire.get_write_buffer_size()  # the server answered before it had read all
        )

    def abort(self) -> None:
        """Close at once and drop what was not sent."""
        self._stop_clock()
        if self._wire is not None:
            self._wire.abort()

    def close_later(self, seconds: float) -> None:
        """Close after `seconds` unless another exchange begins before."""
        self._stop_clock()
        self._clock = self._loop.call_later(seconds, self.abort)

    async def ask(self, sent: Sequence[bytes], write_timeout_s: float | None, read_timeout_s: float | None) -> None:
        """Send a request and return once the head of its response has arrived."""
        self._stop_clock()
        self._begin(read_timeout_s)
        if self._wire is None or self._wire.is_closing():
            raise httpx.ReadError("The connection was closed.")
        for part in sent:
            self._wire.write(part)
        try:
            async with asyncio.timeout(write_timeout_s):
                while self._write_paused and not self._has_head:
                    await self._something()
        except TimeoutError as error:
            raise httpx.WriteTimeout("The request was not taken in time.") from error
        self._start_clock()
        while not self._has_head:
            await self._something()

    async def read(self) -> bytes:
        """The bytes of the body that arrived since the last read; empty at its end."""
        while not self._pieces:
            if self._is_complete:
                return b""
            await self._something()
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held_bytes = 0
        if self._read_paused and self._wire is not None:
            self._read_paused = False
            self._wire.resume_reading()
        return piece

    def give_up_if_silent(self, silent_s: float) -> None:
        """Unless nobody waits, or somebody who wants to wait."""
        if self._waiter is not None and not self.is_patient and self._loop.time() - self._waits_since >= silent_s:
            self._fail(httpx.ReadTimeout("It was given up."))

    async def _something(self) -> None:
        """Wait for the next event.

        Raises:
            httpx.TransportError: the connection failed.
        """
        if self._failure is not None:
            raise self._failure
        self._waits_since = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: httpx.TransportError) -> None:
        """Close; the first failure is the one that is reported."""
        self._failure = self._failure or failure
        self.abort()
        self._wake()

    def _start_clock(self) -> None:
        if self._read_timeout_s is not None:
            self._clock = self._loop.call_later(self._read_timeout_s, self._look_at_clock)

    def _look_at_clock(self) -> None:
        """One timer for a whole response instead of one a piece: it looks how long the current wait has lasted."""
        assert self._read_timeout_s is not None
        waited_s = self._loop.time() - self._waits_since if self._waiter is not None else 0.0
        if waited_s >= self._read_timeout_s:
            self._fail(httpx.ReadTimeout("Nothing came for too long."))
        else:
            self._clock = self._loop.call_later(self._read_timeout_s - waited_s, self._look_at_clock)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)  # uvloop's are none by name

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(httpx.RemoteProtocolError("The response is not HTTP."))

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._pool.forget(self)
        if exc is None and self._has_head and self._ends_with_connection and self._failure is None:
            self._is_complete = True
        elif self._has_head or exc is not None:
            self._failure = self._failure or httpx.ReadError("The connection broke.")
        else:
            self._failure = self._failure or httpx.RemoteProtocolError("The connection was closed without a response.")
        self._wake()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake()

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise httptools.HttpParserError("a response that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _HEAD_BYTES:
            raise httptools.HttpParserError("too many headers")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # "100 Continue": the response comes behind it
            self.headers = []
            return
        names = {name.lower() for name, _ in self.headers}
        has_end = b"content-length" in names or b"transfer-encoding" in names or status in (204, 304)
        self.status, self._has_head, self._ends_with_connection = status, True, not has_end
        self._wake()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._held_bytes += len(body)
        if self._held_bytes > _HELD_BYTES and not self._read_paused and self._wire is not None:
            self._read_paused = True
            self._wire.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        self._is_complete = self._has_head
        self._stays_open = self._parser.should_keep_alive()  # llhttp forgets it after this callback
        self._wake()


def _port_of(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _head(request: httpx.Request) -> bytes:
    """Request line and headers.

    Raises:
        httpx.LocalProtocolError: a value holds a line break.
    """
    lines = [b"%s: %s" % pair for pair in request.headers.raw]
    head = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path), *lines]
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in head):
        raise httpx.LocalProtocolError("A header holds a line break.")
    return b"\r\n".join([*head, b"", b""])
