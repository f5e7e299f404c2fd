"""Downloads: parts of a file, versions that the client has already, and the slot that a download holds until it ends.

A slot is the tenant's, and it is free again whether the answer was read to its end or not.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.admission.slots import TenantSlots
from server.errors import RangeNotSatisfiable
from server.to_the_end import to_the_end

# What waits for a slow reader: as much as this in the connection's buffer, and a piece on its way.
PIECE_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Download(StreamingResponse):
    """Streams `content`, then frees what is held for it, also when the client is gone before the first byte."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        held: AsyncExitStack,
        *,
        media_type: str,
        headers: Mapping[str, str],
        status_code: int = 200,
    ) -> None:
        super().__init__(content, status_code, media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream, then free."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await to_the_end(self._held.aclose())


def slot_of(slots: TenantSlots, tenant: str) -> AsyncExitStack:
    """A slot for a download of the tenant, held until the stack is closed.

    Raises:
        Overloaded: the tenant may have no more of them now.
    """
    held = AsyncExitStack()
    held.enter_context(slots.one(tenant))
    return held


def has_version(request: Request, etag: str) -> bool:
    """Whether the client has this version already (`If-None-Match`)."""
    asked = request.headers.get("if-none-match", "")
    return asked.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in asked.split(","))


def asked_span(request: Request, etag: str, size_bytes: int) -> tuple[int, int] | None:
    """The bytes that the client wants, (first, behind the last); None for all of them: no range, several, one that
    cannot be read, or one of another version (`If-Range`).

    Raises:
        RangeNotSatisfiable: it begins behind the end.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or request.headers.get("if-range", etag).strip() != etag:
        return None
    first, last = match.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None
    if first:
        begin, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    else:
        begin, end = max(size_bytes - int(last), 0), size_bytes
    if begin >= end:
        raise RangeNotSatisfiable(f"The file has {size_bytes} bytes; ask for a range within them.", size_bytes)
    return begin, end


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    """Bytes in memory, so that a slow reader has only a piece of them waiting."""
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


async def in_small_pieces(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, none of the pieces larger than one that waits for a slow reader."""
    async for piece in pieces:
        async for small in in_pieces(piece):
            yield small
