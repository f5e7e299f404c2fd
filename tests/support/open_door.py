"""A tiny HTTP server with the faults that attacks look for: what it is told to do, it does to every request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from attacks.own_server import OwnServer
from attacks.target import Budget, Target

# From the head of a request to status and body; None reads the whole body before it says 200.
Answer = Callable[[str], tuple[int, bytes] | None]


@dataclass
class OpenDoor:
    """Answers as told; `keeps` its side of every connection open when its client is gone."""

    answer: Answer
    keeps: bool = False
    kept: list[asyncio.StreamWriter] = field(default_factory=list)
    keeping: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            told = self.answer(head)
            if told is None:
                while (piece := await reader.read(65536)) and not piece.endswith(b"0\r\n\r\n"):
                    pass
            status, body = told or (200, b"")
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()
        if self.keeps:
            self.kept.append(writer)
            self.keeping.set()
        else:
            writer.close()


@asynccontextmanager
async def open_door(answer: Answer, *, keeps: bool = False) -> AsyncIterator[tuple[OpenDoor, OwnServer]]:
    """The server, and what an attack is given to attack it; the process of all its components is this one."""
    door = OpenDoor(answer, keeps)
    async with await asyncio.start_server(door.serve, "127.0.0.1", 0) as listening:
        target = Target("127.0.0.1", listening.sockets[0].getsockname()[1], Budget())
        yield door, OwnServer(target, Path(), psutil.Process(), keys={"attacker": "eyp_a", "other": "eyp_b"})
        for writer in door.kept:
            writer.close()
