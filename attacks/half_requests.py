"""Requests that never become whole, and replies that nobody reads: bounded in bytes, in time and in number."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator

from attacks.findings import Finding, at_most, nothing_of
from attacks.own_server import OwnServer
from attacks.sample_slides import ready_slide
from attacks.target import BudgetSpent, Wire, request_head
from attacks.watched_process import watched_memory

_MB = 2**20
_HEADER_BYTES, _HEADER_CONNECTIONS = 10 * _MB, 24
# What both ends' kernels hold of a connection that nobody reads any more.
_KERNEL_MB = 6
_HALF_REQUESTS = 2000
_SILENT_BODIES = 200
_SLOW_READERS = 300
_LARGE_FILE_BYTES = 48 * _MB
_CLOSED_WITHIN_S = 35.0
_SERVED_WITHIN_S = 3.0


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Each in turn, with the other tenant beside it."""
    several = (
        _huge_headers(server),
        _halves(server, round(_HALF_REQUESTS * share) or 1),
        _silent_bodies(server, round(_SILENT_BODIES * share) or 1),
        _slow_readers(server, round(_SLOW_READERS * share) or 1),
    )
    for one in several:
        for found in await one:
            yield found
    yield await _odd_requests(server)


async def _huge_headers(server: OwnServer) -> list[Finding]:
    """240 MB of headers in all, of which a server that has a limit takes next to nothing."""
    taken = 0

    async def one() -> None:
        nonlocal taken
        line = b"X-Header: " + b"a" * 65000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            async with server.target.connection() as wire:
                await wire.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                for _ in range(_HEADER_BYTES // len(line)):
                    await wire.write(line)
                    taken += len(line)
                await wire.write(b"\r\n")
                await wire.closed_within(10)

    async with watched_memory(server.process("api")) as memory:
        await asyncio.gather(*(one() for _ in range(_HEADER_CONNECTIONS)))
    return [
        at_most("240 MB of headers: taken", taken / _MB, _HEADER_CONNECTIONS * _KERNEL_MB, "MB"),
        at_most("240 MB of headers: growth of the API's memory", memory.growth_mb, 64, "MB"),
    ]


async def _halves(server: OwnServer, count: int) -> list[Finding]:
    name = f"{count} half requests"
    async with _open(server, count, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n") as wires:
        served = await _served(server)
        left = await _left_open(wires)
    return [
        Finding(f"{name}: the other tenant", _times(served), "200 within 3 s", _good(served)),
        at_most(f"{name}: still open after {_CLOSED_WITHIN_S:.0f} s", left, 0, ""),
    ]


async def _silent_bodies(server: OwnServer, count: int) -> list[Finding]:
    """Heads that promise a body which never comes, of a route that reads JSON; with a good key and without one."""
    found = []
    for who, key in (("with a key", server.attacker), ("without a key", None)):
        head = request_head("POST", "/v1/chat/completions", key=key, headers={"Content-Length": "1000000"})
        async with _open(server, count, head) as wires:
            served = await _served(server)
            left = await _left_open(wires)
        name = f"{count} bodies that never come, {who}"
        found.append(Finding(f"{name}: the other tenant", _times(served), "200 within 3 s", _good(served)))
        found.append(at_most(f"{name}: still open after {_CLOSED_WITHIN_S:.0f} s", left, 0, ""))
    return found


async def _slow_readers(server: OwnServer, count: int) -> list[Finding]:
    """Downloads of a large file that are asked for and not read."""
    slide = await ready_slide(server, server.attacker)
    (path,) = (server.slide_folder("attacker", slide) / "features").glob("*.h5")
    path.write_bytes(path.read_bytes() + secrets.token_bytes(_MB) * (_LARGE_FILE_BYTES // _MB))
    head = request_head("GET", f"/v1/slides/{slide}/features", key=server.attacker)
    async with watched_memory(server.process("api")) as memory, _open(server, count, head, receives=4096):
        await asyncio.sleep(10)
        served = await _served(server)
    name = f"{count} downloads that nobody reads"
    return [
        at_most(f"{name}: growth of the API's memory", memory.growth_mb, 128, "MB"),
        Finding(f"{name}: the other tenant", _times(served), "200 within 3 s", _good(served)),
    ]


@contextlib.asynccontextmanager
async def _open(server: OwnServer, count: int, data: bytes, receives: int | None = None) -> AsyncIterator[list[Wire]]:
    """So many connections with `data` sent and nothing read; those that the server does not take are left out."""
    wires: list[Wire] = []
    try:
        for _ in range(count):
            try:
                async with asyncio.timeout(5):
                    wires.append(await _narrow(server, receives) if receives else await server.target.connect())
                    await wires[-1].write(data)
            except BudgetSpent:
                raise
            except (OSError, TimeoutError):
                continue
        yield wires
    finally:
        for wire in wires:
            wire.hang_up()
        await asyncio.sleep(0.5)


async def _narrow(server: OwnServer, receives: int) -> Wire:
    """A client whose own kernel takes next to nothing."""
    server.target.budget.connect()
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (server.target.host, server.target.port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=receives)
    return Wire(reader, writer, server.target.budget)


async def _served(server: OwnServer) -> list[tuple[int, float]]:
    """What the other tenant gets meanwhile."""
    replies = []
    for _ in range(5):
        replies.append(await server.target.get("/v1/slides", server.other, timeout_s=10))
    return [(it.status, it.took_s) for it in replies]


def _good(served: list[tuple[int, float]]) -> bool:
    return all(status == 200 and took_s <= _SERVED_WITHIN_S for status, took_s in served)


def _times(served: list[tuple[int, float]]) -> str:
    worst = max(took_s for _, took_s in served)
    return f"{sorted({status for status, _ in served})}, {worst:.1f} s at most"


async def _left_open(wires: list[Wire]) -> int:
    """How many the server keeps beyond any patience."""
    ends_at = time.monotonic() + _CLOSED_WITHIN_S
    closed = await asyncio.gather(*(it.closed_within(ends_at - time.monotonic()) for it in wires))
    return closed.count(False)


async def _odd_requests(server: OwnServer) -> Finding:
    """What is hardly HTTP, smuggled bodies among it: refused, never two replies for one request."""
    smuggled = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    plain = b"POST /v1/slides/x/encode HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    cases = {
        "both lengths": plain + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
        "two lengths": plain + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled,
        "a negative length": plain + b"Content-Length: -1\r\n\r\n" + smuggled,
        "a length of 30 digits": plain + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + smuggled,
        "an unknown encoding": plain + b"Transfer-Encoding: xchunked\r\n\r\n" + smuggled,
        "a chunk size of 40 digits": plain + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n" + smuggled,
        "a folded header": b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\r\n c: d\r\n\r\n",
        "no version": b"GET /livez\r\n\r\n",
        "HTTP/2 in the clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": bytes.fromhex("160301020001") + secrets.token_bytes(500),
        "zeros": bytes(4096),
        "a method of 9,000": b"A" * 9000 + b" / HTTP/1.1\r\n\r\n",
        "an upgrade": b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        "a long path": b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    }
    wrong = []
    for name, data in cases.items():
        async with server.target.connection() as wire:
            seen = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                await wire.write(data)
                async with asyncio.timeout(2):
                    while piece := await wire.reader.read(65536):
                        seen += piece
            if b"HTTP/1.1 5" in seen or b'"owned_by"' in seen:
                wrong.append(f"{name}: {seen[:20]!r}")
    return nothing_of("what is hardly HTTP", wrong, "refused", len(cases))
