"""An app behind the very server that `eyepiece api` runs: some faults are only there with real connections."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from server.api.drain import Drain, DrainingServer
from server.app import server_of
from server.settings import Settings


@dataclass(frozen=True)
class Served:
    """Where it listens, and the server."""

    port: int
    server: DrainingServer

    async def connect(
        self, receive_buffer_bytes: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection; with a small buffer of its own the kernel soon takes no more of an answer."""
        raw = socket.socket()
        if receive_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=raw, limit=2**16)

    async def answer_to(self, request: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def served_app(app: ASGIApp, settings: Settings) -> AsyncIterator[Served]:
    """The app at a free port; its lifespan does not run."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = server_of(app, Drain(), settings)
    server.config.lifespan = "off"
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Served(listener.getsockname()[1], server)
    finally:
        server.should_exit = True
        await serving
