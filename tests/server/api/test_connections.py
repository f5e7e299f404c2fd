"""Connections that come to nothing: heads that do not end, answers that nobody reads, too many at once."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator

import pytest
from api_parts import until
from fastapi import FastAPI
from served_bounded import Served, served_app
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from server.api.connections import MAX_HEAD_BYTES, MAX_HEADERS, allow_descriptors
from server.settings import Settings

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
LAST = LIVEZ + b"Connection: close\r\n\r\n"
PIECE = b"x" * 2**16
MAX_BODY_BYTES = Settings().max_body_bytes


class Endless:
    """Answers with a stream that has no end, reads whole bodies, and counts the pieces of both."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refuse":
            response = PlainTextResponse("no", 401, headers={"Connection": "close"})
            await response(scope, receive, send)
            return
        if scope["path"] == "/livez":
            await Request(scope, receive).body()
            await PlainTextResponse("alive")(scope, receive, send)
            return
        try:
            await StreamingResponse(self._pieces())(scope, receive, send)
        finally:
            self.is_gone.set()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1
            yield PIECE
            await asyncio.sleep(0)  # as reading from a disk does


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[Served]:
    async with served_app(Endless(), settings) as served:
        yield served


@pytest.fixture
async def impatient(settings: Settings) -> AsyncIterator[Served]:
    async with served_app(Endless(), settings.model_copy(update={"head_timeout_s": 0.1})) as served:
        yield served


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def sent_until_refused(served: Served, begin: bytes, repeated: bytes) -> tuple[int, int]:
    """Send without an end; the status, and about how many bytes the server took."""
    reader, writer = await served.connect()
    answer = asyncio.create_task(reader.read())
    writer.write(begin)
    sent = 0
    try:
        while not answer.done() and sent < 64 * 2**20:
            writer.write(repeated)
            sent += len(repeated)
            await writer.drain()
    except ConnectionError:
        pass
    status = status_of(await answer)
    writer.close()
    return status, sent


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(PIECE)
        await writer.drain()
        await asyncio.sleep(0)


ENDLESS_HEADS = {
    "address": (b"GET /", b"a" * 2**16, 431),
    "one header": (LIVEZ + b"X: ", b"a" * 2**16, 431),
    "header name": (LIVEZ, b"a" * 2**16, 431),
    "headers": (LIVEZ, b"X: y\r\n" * 10_000, 431),
    "large headers": (LIVEZ, (b"X: " + b"y" * 8000 + b"\r\n") * 8, 431),
    "trailers": (b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000, 431),
    "one trailer": (b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 2**16, 431),
    "chunk extension": (b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"a" * 2**16, 431),
    "line breaks": (b"", b"\r\n" * 2**15, 431),
    "requests": (LIVEZ + b"\r\n", (LIVEZ + b"\r\n") * 1000, 400),
    "garbage": (b"", b"\x00" * 2**16, 400),
}


@pytest.mark.parametrize("name", ENDLESS_HEADS)
async def test_a_head_without_an_end_is_refused(served: Served, name: str) -> None:
    begin, repeated, expected = ENDLESS_HEADS[name]
    status, sent = await sent_until_refused(served, begin, repeated)
    assert status == expected or (name == "requests" and status == 200)
    assert sent < 8 * 2**20  # what the kernel's buffers hold
    await until(lambda: not served.server.server_state.connections)


async def test_a_head_within_its_bounds_is_served(served: Served) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 200) for number in range(MAX_HEADERS - 2))
    assert len(headers) < MAX_HEAD_BYTES
    assert status_of(await served.answer_to(LIVEZ + headers + b"Connection: close\r\n\r\n")) == 200


async def test_a_refusal_of_the_protocol_is_a_problem(served: Served) -> None:
    head, _, body = (await served.answer_to(LIVEZ + b"X: " + b"a" * 40_000)).partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    assert b'"code":"head_too_large"' in body


async def test_who_sends_a_whole_body_that_nobody_wants_still_gets_the_answer(served: Served) -> None:
    """Simple clients look for an answer when all is sent."""

    def answer() -> bytes:
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
            client.sendall(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES)
            client.sendall(bytes(MAX_BODY_BYTES))
            return client.recv(65536)

    assert status_of(await asyncio.to_thread(answer)) == 401


@pytest.mark.parametrize("begin", [b"", b"G", LIVEZ, LIVEZ + b"X: y", b"\r\n"])
async def test_half_a_request_ends_after_a_while(impatient: Served, begin: bytes) -> None:
    assert status_of(await impatient.answer_to(begin)) == 408


@pytest.mark.parametrize("begin", [b"G", b"\r\n", LIVEZ])
async def test_half_a_request_behind_a_whole_one_ends_too(impatient: Served, begin: bytes) -> None:
    reader, writer = await impatient.connect()
    writer.write(LIVEZ + b"\r\n")
    await reader.readuntil(b"alive")
    writer.write(begin)
    assert status_of(await reader.read()) == 408
    writer.close()


async def test_beyond_the_cap_only_health_is_answered(settings: Settings) -> None:
    async with served_app(Endless(), settings.model_copy(update={"max_connections": 2})) as served:
        idle = [await served.connect() for _ in range(2)]
        await until(lambda: len(served.server.server_state.connections) == 2)

        refused = await served.answer_to(b"GET /v1/slides HTTP/1.1\r\n\r\n")
        assert status_of(refused) == 503
        assert b"too_many_connections" in refused
        assert b"Retry-After: 2" in refused
        assert status_of(await served.answer_to(LAST)) == 200

        more = [await served.connect() for _ in range(16)]
        await until(lambda: len(served.server.server_state.connections) == 18)
        assert status_of(await served.answer_to(b"")) == 503
        for _, writer in idle + more:
            writer.close()
        await until(lambda: not served.server.server_state.connections)
        assert status_of(await served.answer_to(LAST)) == 200


async def test_one_address_has_its_own_cap(settings: Settings) -> None:
    async with served_app(Endless(), settings.model_copy(update={"max_connections_per_address": 1})) as served:
        _, writer = await served.connect()
        await until(lambda: len(served.server.server_state.connections) == 1)
        assert status_of(await served.answer_to(LAST)) == 503
        writer.close()
        await until(lambda: not served.server.server_state.connections)
        assert status_of(await served.answer_to(LAST)) == 200


async def test_an_answer_that_is_not_read_ends(settings: Settings) -> None:
    app = Endless()
    async with served_app(app, settings.model_copy(update={"write_timeout_s": 0.1})) as served:
        _, writer = await served.connect(receive_buffer_bytes=4096)
        writer.write(b"GET /endless HTTP/1.1\r\n\r\n")
        await app.is_gone.wait()
        await until(lambda: not served.server.server_state.connections)
        assert app.sent < 10  # 64 KiB each: what waits for a slow reader is bounded
        writer.close()


async def test_an_answer_that_is_read_goes_on(settings: Settings) -> None:
    app = Endless()
    async with served_app(app, settings.model_copy(update={"write_timeout_s": 5.0})) as served:
        reader, writer = await served.connect()
        writer.write(b"GET /endless HTTP/1.1\r\n\r\n")
        for _ in range(2000):
            await reader.readexactly(2**15)
        assert not app.is_gone.is_set()
        writer.close()
        await app.is_gone.wait()


async def test_a_refusal_reaches_a_client_that_is_still_sending(served: Served) -> None:
    """And the rest of its body is neither read for ever nor awaited."""
    reader, writer = await served.connect()
    writer.write(b"POST /refuse HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" + PIECE)
    assert status_of(await reader.read()) == 401
    with pytest.raises(ConnectionError):
        await send_for_ever(writer)
    await until(lambda: not served.server.server_state.connections)
    writer.close()


async def test_a_client_that_waits_for_100_continue(app: FastAPI, settings: Settings) -> None:
    """Is asked for its body when the key was checked, and never before."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: 2\r\nExpect: 100-continue\r\n"
    async with served_app(app, settings) as served:
        refused = await served.answer_to(head + b"Authorization: Bearer eyp_x\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in refused

        too_large = head.replace(b"Length: 2", b"Length: 9999999") + b"\r\n"
        assert (await served.answer_to(too_large)).startswith(b"HTTP/1.1 413 ")

        reader, writer = await served.connect()
        writer.write(head + b"\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 422
        writer.close()


def test_the_limit_of_descriptors_follows_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    allow_descriptors(1024)
    assert limits["now"] == (1024 + 16 + 1024, 4096)
    allow_descriptors(10_000)
    assert limits["now"] == (4096, 4096)
