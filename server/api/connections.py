"""Bounds of connections: how many, how long and how large a request's head may be, how long an answer is not read.

uvicorn has a limit of requests but none of these, so this is its protocol with more in it. **It depends on private
names of uvicorn** (`HttpToolsProtocol`: `pipeline`, `cycle`, `connections`, `send_400_response`, and that an error in a
callback of the parser ends in the latter); tests/server/api/test_connections.py fails when they change.

A connection is in one of three states, and each has its end:

    head      a request has begun but is not there yet   head_timeout_s, MAX_HEAD_BYTES, MAX_HEADERS
    answer    bytes wait in our buffer to be read        write_timeout_s without any being taken
    idle      nothing                                    uvicorn's timeout_keep_alive
"""

import asyncio
import resource
import socket
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import orjson
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from model_store.errors import EyepieceError
from server.errors import (
    PROBLEM_JSON,
    HeadTooLarge,
    HeadTooSlow,
    MalformedRequest,
    TooManyConnections,
    http_status,
    problem,
    response_headers,
)

log = structlog.get_logger(__name__)
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
# Requests that wait behind the one that is answered; browsers and common clients never send any.
_MAX_PIPELINED = 8
# Beyond max_connections this many may still ask whether the server lives.
_RESERVED = 16
_HEALTH = (b"/livez", b"/readyz", b"/metrics")
# What a client may still send, unread, while it is told that nobody wants it. A connection that is closed over unread
# bytes is reset, and then the answer is lost. It is enough for a JSON body of the largest size, which may be an honest
# mistake; of a slide no more is taken either.
_LINGER_S = 2.0
_LINGER_BYTES = 8 * 1024 * 1024
# A client that reads slowly is seen reading: without this the kernel takes megabytes before it says that it is full.
_NOT_SENT_BYTES = 64 * 1024
# Redis, vLLM, files, readers.
_OTHER_DESCRIPTORS = 1024


@dataclass(frozen=True)
class ConnectionLimits:
    """`max_per_address` 0 sets no limit: behind a proxy all connections come from one address."""

    max_connections: int
    max_per_address: int
    head_timeout_s: float
    write_timeout_s: float


_HEAD_TOO_LARGE = HeadTooLarge("The address and headers of the request are too large; send fewer.")
_HEAD_TOO_SLOW = HeadTooSlow("The request took too long to arrive; send it again.")
_FULL = TooManyConnections("Too many connections at once; try again shortly.", retry_after_s=2)
_MALFORMED = MalformedRequest("This is not HTTP; send a valid request.")
_PIPELINED = MalformedRequest("Too many requests came before the first answer; wait for answers.")


class _Refused(Exception):
    """Ends the parser from within one of its callbacks."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        limits: ConnectionLimits,
        addresses: "Counter[str]",
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self._limits = limits
        self._addresses = addresses
        self._address = ""
        self._health_only = False
        self._refusal: EyepieceError = _MALFORMED
        self._head_since: float | None = None
        self._unread_since: float | None = None
        self._written_bytes = self._taken_bytes = 0
        # Bytes that came and neither completed a head nor belonged to a body; any of these sets it to 0.
        self._idle_bytes = self._header_bytes = 0
        self._progressed = False
        self._is_refused = False
        self._lingering_since: float | None = None
        self._lingered_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, or say that there are too many."""
        super().connection_made(_Transport(transport, self))  # type: ignore[arg-type]
        sock = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_NOTSENT_LOWAT") and sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES)
        self._head_since = time.monotonic()
        self._address = self.client[0] if self.client else ""
        self._addresses[self._address] += 1
        limits, count = self._limits, len(self.connections)
        self._health_only = count > limits.max_connections
        crowded = 0 < limits.max_per_address < self._addresses[self._address]
        if crowded or count > limits.max_connections + _RESERVED:
            self.transport.write(_response(_FULL))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self._addresses[self._address] -= 1
        if not self._addresses[self._address]:
            del self._addresses[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and bound what does not come to anything."""
        if self._lingering_since is not None:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        if self.transport.is_closing():
            return
        self._progressed = False
        super().data_received(data)
        if self._head_since is None and (self.cycle is None or self.cycle.response_complete):
            self._head_since = time.monotonic()  # uvicorn stopped its clock of idle connections
        if self._progressed:
            self._idle_bytes = 0
            return
        self._idle_bytes += len(data)
        if self._idle_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_since = time.monotonic()
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind a body."""
        self._count_head(len(name) + len(value))
        if len(self.headers) >= MAX_HEADERS:
            self._refuse_from_parser(_HEAD_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is there: the request runs, or waits for the one before it."""
        self._progressed = True
        self._head_since = None
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refuse_from_parser(_PIPELINED)
        if self._health_only and self.url.split(b"?", 1)[0] not in _HEALTH:
            self._refuse_from_parser(_FULL)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._progressed = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser stopped: what it read is no HTTP, or one of our callbacks refused it."""
        self._refuse(self._refusal)

    def end_if_overdue(self, now_s: float) -> None:
        """Called every now and then, by `time.monotonic`: end the connection when its state has lasted too long."""
        if self._lingering_since is not None:
            if now_s - self._lingering_since > _LINGER_S:
                self.transport.abort()
        elif self._head_since is not None and self.flow.read_paused:
            self._head_since = now_s  # it is us who do not read on
        elif self._head_since is not None and now_s - self._head_since > self._limits.head_timeout_s:
            self._head_since = None
            self._refuse(_HEAD_TOO_SLOW)
        elif self._is_unread_since(now_s) > self._limits.write_timeout_s:
            log.info("answer_not_read")
            self.transport.abort()

    def note_written(self, size_bytes: int) -> None:
        """Bytes that our transport took."""
        self._written_bytes += size_bytes

    def should_linger(self) -> bool:
        """Whether the client is still sending what nobody will read."""
        return self._is_refused or (self.cycle is not None and self.cycle.more_body)

    def linger(self) -> None:
        """Send the end of the answer, and only close when the client has seen it or had time to."""
        self._lingering_since = time.monotonic()
        self.flow.resume_reading()
        self.transport.write_eof()

    def _is_unread_since(self, now_s: float) -> float:
        """For how many seconds nothing was taken of what waits to be read."""
        waiting = self.transport.get_write_buffer_size()
        taken = self._written_bytes - waiting
        if not waiting or taken != self._taken_bytes or self._unread_since is None:
            self._taken_bytes = taken
            self._unread_since = now_s if waiting else None
            return 0.0
        return now_s - self._unread_since

    def _count_head(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEAD_BYTES:
            self._refuse_from_parser(_HEAD_TOO_LARGE)

    def _refuse_from_parser(self, refusal: EyepieceError) -> None:
        self._refusal = refusal
        raise _Refused

    def _refuse(self, refusal: EyepieceError) -> None:
        """Answer, unless another answer is on its way, and close."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_response(refusal))
        self._is_refused = True
        self.transport.close()


class _Transport:
    """uvicorn's view of a connection: notes what is written, and lingers instead of closing over unread bytes."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Into the buffer; after the end of an answer nothing is."""
        if self._closing:
            return
        self._protocol.note_written(len(data))
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """At once, or after a while."""
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        if self._protocol.should_linger():
            self._protocol.linger()
        else:
            self._transport.close()


def bounded_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """What `uvicorn.Config` takes as `http`: it only ever calls it."""
    return cast(type[asyncio.Protocol], partial(BoundedProtocol, limits, Counter()))


def allow_descriptors(max_connections: int) -> None:
    """Raise this process's limit of open files to what so many connections need, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _RESERVED + _OTHER_DESCRIPTORS
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        log.warning("few_descriptors", limit=possible, wanted=wanted)


def _response(refusal: EyepieceError) -> bytes:
    content = orjson.dumps(problem(refusal))
    headers = response_headers(refusal) | {
        "Content-Type": PROBLEM_JSON,
        "Content-Length": str(len(content)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[http_status(refusal)] + lines.encode() + b"\r\n" + content
