"""A vLLM server over real connections that goes no further than it is told, and knows who has hung up on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from fakes import sse, token_chunk

Stage = Literal["headers", "first token", "second token"]
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class HeldVllm:
    """Reads every request and stops before `stage` until the connection closes; `running` are those it still has."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.running = 0
        self.begun = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection with one request."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            self.running += 1
            self.begun += 1
            try:
                if self._stage != "headers":
                    writer.write(_HEAD)
                if self._stage == "second token":
                    [piece] = sse(token_chunk("No "), done=False)
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await reader.read()
            finally:
                self.running -= 1
        writer.close()


@asynccontextmanager
async def held_vllm(stage: Stage) -> AsyncIterator[HeldVllm]:
    """Listens until the block ends."""
    vllm = HeldVllm(stage)
    server = await asyncio.start_server(vllm.serve, "127.0.0.1", 0)
    vllm.port = server.sockets[0].getsockname()[1]
    try:
        yield vllm
    finally:
        server.close()
