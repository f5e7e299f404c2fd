"""The body of an answer with instances or frames: multipart/related (RFC 2387), each part as it is stored."""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from server.api.dicom_accept import MULTIPART
from server.api.downloads import PIECE_BYTES, in_small_pieces
from server.storage.slide_store import SlideStore


@dataclass(frozen=True)
class StoredPart:
    """A part: bytes of an object of the store, all of them or those of `span`, (first, behind the last)."""

    key: str
    size_bytes: int
    media_type: str
    transfer_syntax: str
    span: tuple[int, int] | None = None


class MultipartBody:
    """Parts of one media type, streamed one after the other."""

    def __init__(self, store: SlideStore, parts: Sequence[StoredPart]) -> None:
        self._store = store
        self._parts = parts
        self._boundary = secrets.token_hex(16)

    @property
    def content_type(self) -> str:
        """The answer's `Content-Type`."""
        return f'{MULTIPART}; type="{self._parts[0].media_type}"; boundary={self._boundary}'

    @property
    def size_bytes(self) -> int:
        """The answer's `Content-Length`."""
        framed = sum(len(self._head(part)) + part.size_bytes + 2 for part in self._parts)
        return framed + len(self._end())

    async def stream(self) -> AsyncIterator[bytes]:
        """The body."""
        for part in self._parts:
            yield self._head(part)
            async for piece in in_small_pieces(self._store.stream(part.key, PIECE_BYTES, part.span)):
                yield piece
            yield b"\r\n"
        yield self._end()

    def _head(self, part: StoredPart) -> bytes:
        kind = f"{part.media_type}; transfer-syntax={part.transfer_syntax}"
        return f"--{self._boundary}\r\nContent-Type: {kind}\r\nContent-Length: {part.size_bytes}\r\n\r\n".encode()

    def _end(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()
