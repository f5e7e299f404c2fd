"""One question, its answer as a stream, and the moment of its first text: the client of every load test.

Asks our API and a bare vLLM through the same code, so that what differs between them is theirs. Plain asyncio, because
the client has to share the cores with what it measures. It knows HTTP/1.1 and server-sent events, no TLS.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

# A piece of server-sent events or of a chunk's frame; far longer than any line that we are sent.
_LINE_LIMIT_BYTES = 2**22


@dataclass(frozen=True)
class Request:
    """A POST that is answered by server-sent events. `url` has no query."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def head(self) -> bytes:
        """Request line and headers."""
        parts = urlsplit(self.url)
        headers = {"Host": parts.netloc, "Content-Type": "application/json", **self.headers}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        return f"POST {parts.path} HTTP/1.1\r\n{''.join(lines)}Content-Length: {len(self.body)}\r\n\r\n".encode()


@dataclass(frozen=True)
class StreamedAnswer:
    """Seconds since the request was sent; `usage` as the server reports it, `closing` the last event's data, `pieces`
    how many events brought text."""

    text: str
    first_text_s: float
    total_s: float
    usage: dict[str, Any]
    closing: dict[str, Any] = field(default_factory=dict)
    pieces: int = 0

    @property
    def tokens(self) -> int:
        """Generated ones."""
        return int(self.usage["completion_tokens"])


class AnswerFailed(Exception):
    """Refused, broken off, or ended by an error event; `code` is the server's word, or the status, or `broken`."""

    def __init__(self, code: str, detail: str = "", *, text: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.text = text


@dataclass
class _Reply:
    """What has come so far."""

    text: str = ""
    pieces: int = 0
    first_text_s: float | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    closing: dict[str, Any] = field(default_factory=dict)


class AnswerClient:
    """One connection, kept from answer to answer. Not for two answers at once."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._address: tuple[str, int] | None = None

    async def ask(self, request: Request, on_first_text: Callable[[], None] = lambda: None) -> StreamedAnswer:
        """The whole answer.

        Raises:
            AnswerFailed: there is none.
        """
        reply, started = _Reply(), time.perf_counter()
        try:
            await self._read(request, reply, started, on_first_text)
        except AnswerFailed as error:
            error.text = reply.text
            await self.close()
            raise
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            await self.close()
            raise AnswerFailed("broken", type(error).__name__, text=reply.text) from error
        if reply.first_text_s is None or not reply.usage:
            await self.close()
            raise AnswerFailed("broken", "the stream ended without its last event", text=reply.text)
        total_s = time.perf_counter() - started
        return StreamedAnswer(reply.text, reply.first_text_s, total_s, reply.usage, reply.closing, reply.pieces)

    async def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = self._address = None

    async def _read(self, request: Request, reply: _Reply, started: float, on_first_text: Callable[[], None]) -> None:
        status, headers = await self._send(request)
        if status != 200:
            raise _refusal(status, await self._body(headers))
        async with aclosing(_events(self._chunks())) as events:
            async for name, data in events:
                _take(name, data, reply)
                if reply.text and reply.first_text_s is None:
                    reply.first_text_s = time.perf_counter() - started
                    on_first_text()
        if headers.get("connection", "").lower() == "close":
            await self.close()

    async def _send(self, request: Request) -> tuple[int, dict[str, str]]:
        """Sends it; a kept connection that was closed meanwhile is opened anew, once."""
        for again in (True, False):
            fresh = self._address != request.address
            if fresh:
                await self.close()
                self._reader, self._writer = await asyncio.open_connection(*request.address, limit=_LINE_LIMIT_BYTES)
                self._address = request.address
            assert self._reader is not None
            assert self._writer is not None
            try:
                self._writer.write(request.head() + request.body)
                await self._writer.drain()
                return await _status_and_headers(self._reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                await self.close()
                if fresh or not again:
                    raise
        raise AssertionError("unreachable")

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """The pieces of a chunked body, without their frames."""
        reader = self._reader
        assert reader is not None
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        assert self._reader is not None
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        return b"".join([chunk async for chunk in self._chunks()])


async def _status_and_headers(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _events(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[str, bytes], None]:
    """Event name (empty where there is none) and data; comments are passed over."""
    name, rest = "", b""
    async with aclosing(chunks):
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: "):
                    yield name, line[6:]
                    name = ""


def _take(name: str, data: bytes, reply: _Reply) -> None:
    """An event of our API when it has a name, a chunk of the OpenAI API when it has none."""
    if data == b"[DONE]":
        return
    content = json.loads(data)
    if name == "token":
        reply.text += content["text"]
        reply.pieces += 1
    elif name == "done":
        reply.closing, reply.usage = content, content["usage"]
    elif name == "error" or "error" in content:
        problem = content if name == "error" else content["error"]
        raise AnswerFailed(str(problem.get("code")), str(problem.get("detail", problem.get("message", ""))))
    elif not name:
        _take_chunk(content, reply)


def _take_chunk(content: dict[str, Any], reply: _Reply) -> None:
    reply.usage = content.get("usage") or reply.usage
    for choice in content["choices"]:
        piece = choice["delta"].get("content") or ""
        # As our API does it: an answer begins with its first visible character.
        reply.text += piece if reply.text else piece.lstrip()
        reply.pieces += bool(piece)


def _refusal(status: int, body: bytes) -> AnswerFailed:
    try:
        problem = json.loads(body)
        problem = problem.get("error", problem)
        return AnswerFailed(str(problem.get("code", status)), str(problem.get("detail", problem.get("message", ""))))
    except (ValueError, AttributeError):
        return AnswerFailed(str(status))
