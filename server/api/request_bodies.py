"""Bounds of request bodies, held while they arrive: bytes, JSON values, and how much is kept of all of them together.

The parser and the validator work through a whole body in one go, and nothing else is answered meanwhile. Their time
goes with the number of values far more than with the bytes: 4 MB of `0,0,0,…` took a minute, 4 MB of text takes some
milliseconds. So values are counted before anything is parsed, and large bodies are parsed one at a time. Numbers are
the exception: their time goes with the square of their digits (4 MB of numbers of 4,000 digits: 75 ms), so digits are
counted too.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALL_BUT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b",[{")
_ALL_BUT_DIGITS = bytes(byte for byte in range(256) if byte not in b"0123456789")
# More than any number that means something here has.
_DIGITS_OF_A_VALUE = 32
# Counted in a millisecond or two.
_PIECE_BYTES = 64 * 1024
# What is no larger is counted and parsed in a fraction of a millisecond, whatever it holds.
_SMALL_BYTES = 16 * 1024


@dataclass(frozen=True)
class BodyBounds:
    """What a JSON body of a route may have: bytes, and values (commas and opening brackets outside strings)."""

    max_bytes: int
    max_values: int


class ValueCount:
    """Counts the values of a JSON text that comes in pieces, and the digits of its numbers."""

    def __init__(self) -> None:
        self.values = 0
        self.digits = 0
        self._in_string = False
        self._rest = b""

    def add(self, piece: bytes) -> None:
        """The bytes that come next."""
        piece = self._rest + piece
        self._rest = b""
        if b"\\" in piece:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                piece, self._rest = piece[:-1], b"\\"
            # What is left of a run of backslashes, if anything, escapes what comes behind it.
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        between_quotes = piece.split(b'"')
        outside = b"".join(between_quotes[self._in_string :: 2])
        self.values += len(outside.translate(None, _ALL_BUT_STRUCTURE))
        self.digits += len(outside.translate(None, _ALL_BUT_DIGITS))
        self._in_string ^= len(between_quotes) % 2 == 0


class BodyLimit:
    """ASGI middleware: bodies beyond their bounds are refused while they arrive; a body that was not read to its end
    closes the connection, so that the rest need not be."""

    def __init__(
        self, app: ASGIApp, bounds_of: Callable[[str, str], BodyBounds | None], max_together_bytes: int
    ) -> None:
        """`bounds_of` says by method and path what a body may have; None: it limits itself, as an upload does.
        `max_together_bytes` is for all bodies that are held at once."""
        self._app = app
        self._bounds_of = bounds_of
        self._max_together_bytes = max_together_bytes
        self._held_bytes = 0
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the body on its way in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, send)
        bounds = self._bounds_of(scope["method"], scope["path"])
        if bounds is None:
            await self._app(scope, body.receive, body.send)
            return
        count = ValueCount()
        try:
            await self._app(scope, partial(self._receive_bounded, body, bounds, count), body.send)
        finally:
            self._held_bytes -= body.received_bytes

    async def _receive_bounded(self, body: "_Body", bounds: BodyBounds, count: ValueCount) -> Message:
        """The next message of a JSON body.

        Raises:
            HTTPException: too much; FastAPI turns any other error while reading a body into a 400.
        """
        if body.announced_bytes > bounds.max_bytes:
            raise HTTPException(413)
        message = await body.receive()
        content = message.get("body", b"")
        self._held_bytes += len(content)
        if body.received_bytes > bounds.max_bytes:
            raise HTTPException(413)
        if self._held_bytes > self._max_together_bytes:
            raise HTTPException(429)
        if b"\0" in content:  # UTF-16 and UTF-32, which the parser would take; their strings end elsewhere
            raise HTTPException(400)
        if body.received_bytes <= _SMALL_BYTES:
            _count(content, bounds, count)
        else:
            # A piece is counted in each turn of the event loop, or a body parsed (by whoever is called next).
            async with self._one_at_a_time:
                for start in range(0, len(content), _PIECE_BYTES):
                    _count(content[start : start + _PIECE_BYTES], bounds, count)
                    await asyncio.sleep(0)
        return message


def announced_bytes(request: Request) -> int:
    """The body's size as the client gives it; 0 when it does not."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 20 else 0


def _count(piece: bytes, bounds: BodyBounds, count: ValueCount) -> None:
    count.add(piece)
    if count.values > bounds.max_values:
        raise HTTPException(422, f"The request body has more than {bounds.max_values} values; send fewer at once.")
    if count.digits > bounds.max_values * _DIGITS_OF_A_VALUE:
        raise HTTPException(422, "The numbers of the request body have too many digits; send shorter ones.")


class _Body:
    """A request's body as uvicorn sends it, and how much of it has come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        # int() refuses what has thousands of digits; so many are beyond any limit anyway, unless they are zeros.
        self.announced_bytes = int(length.lstrip(b"0")[:18] or b"0") if length.isdigit() else 0
        self.received_bytes = 0
        self.is_complete = not self.announced_bytes and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """The next message."""
        message = await self._receive()
        self.received_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Answer; the connection is not kept for the sake of a body that nobody wants."""
        if message["type"] == "http.response.start" and not self.is_complete:
            message.setdefault("headers", []).append((b"connection", b"close"))
        await self._send(message)
