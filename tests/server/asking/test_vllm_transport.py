"""The transport to vLLM over real connections: what comes back, how it can break, and that nothing stays open."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from api_parts import until

from server.asking import known_addresses, vllm_transport
from server.asking.vllm_transport import VllmTransport, _Connection
from server.machine.redis_server import free_loopback_port
from server.to_the_end import stop

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class RawServer:
    """Answers each request with what `answer` does; knows its connections."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.url = ""
        self.connections = 0
        self.open = 0
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await self._answer(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def asked(
    answer: Answer, *, read_s: float = 30.0, keepalive_s: float = 30.0, max_idle: int = 8
) -> AsyncIterator[tuple[httpx.AsyncClient, RawServer]]:
    """A client whose connections go to a server that answers as told."""
    raw = RawServer(answer)
    async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as listening:
        raw.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        timeout = httpx.Timeout(30.0, read=read_s)
        transport = VllmTransport(max_idle, keepalive_s)
        async with httpx.AsyncClient(transport=transport, base_url=raw.url, timeout=timeout) as client:
            yield client, raw
        await until(lambda: raw.open == 0)


def connection_of(client: httpx.AsyncClient) -> _Connection:
    transport = client._transport
    assert isinstance(transport, VllmTransport)
    [connection] = transport._open
    return connection


def saying(*pieces: bytes, close: bool = False) -> Answer:
    """Sends the pieces at once, and then closes the connection if told to."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(pieces))
        if close:
            writer.close()

    return answer


async def test_what_comes_together_is_read_in_one_piece() -> None:
    async with (
        asked(saying(_CHUNKED, b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")) as (client, _),
        client.stream("GET", "/") as response,
    ):
        assert [piece async for piece in response.aiter_raw()] == [b"onetwo"]


async def test_a_connection_is_used_again_and_the_request_is_whole() -> None:
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(2**20))
        writer.write(_EMPTY)

    async with asked(answer) as (client, raw):
        for letter in (b"a", b"b"):
            assert (await client.post("/path?q=1", content=letter * 2**20, headers={"X-One": "1"})).status_code == 200

    assert raw.connections == 1
    assert bodies == [b"a" * 2**20, b"b" * 2**20]
    assert raw.heads[0].startswith(b"POST /path?q=1 HTTP/1.1\r\n")
    assert b"x-one: 1\r\n" in raw.heads[0].lower()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    ],
    ids=["until it closes", "HTTP/1.0", "says so", "behind 100 Continue"],
)
async def test_a_connection_that_ends_with_its_response_is_not_used_again(head: bytes) -> None:
    async with asked(saying(head, close=True)) as (client, raw):
        for _ in range(2):
            assert (await client.get("/")).text == "hello"

    assert raw.connections == 2


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200", httpx.RemoteProtocolError),
        (_CHUNKED + b"5\r\nhel", httpx.ReadError),
        (_CHUNKED + b"5\r\nhello\r\n", httpx.ReadError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", httpx.ReadError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", httpx.RemoteProtocolError),
        (_CHUNKED + b"zz\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", httpx.RemoteProtocolError),
    ],
    ids=["nothing", "half a head", "half a chunk", "no last chunk", "too short", "SSH", "no chunk", "head", "upgrade"],
)
async def test_a_response_that_breaks_off_or_is_none_is_an_error(sent: bytes, error: type[Exception]) -> None:
    async with asked(saying(sent, close=True)) as (client, _):
        with pytest.raises(error):
            await client.get("/")


async def test_what_came_before_a_break_is_read_first() -> None:
    async with (
        asked(saying(_CHUNKED, b"3\r\none\r\nzz\r\n")) as (client, _),
        client.stream("GET", "/") as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)


@pytest.mark.parametrize("sent", [b"", _CHUNKED, _CHUNKED + b"3\r\none\r\n"], ids=["head", "body", "rest"])
async def test_silence_ends_a_response(sent: bytes) -> None:
    async with asked(saying(sent), read_s=0.05) as (client, _):
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/")


async def test_only_waiting_counts_as_silence() -> None:
    go_on = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_CHUNKED + b"3\r\none\r\n")
        await go_on.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with asked(answer, read_s=0.5) as (client, _), client.stream("GET", "/") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        looks = connection_of(client)._clock
        await until(lambda: connection_of(client)._clock is not looks)  # the reader is busy for longer than that
        go_on.set()
        assert await anext(pieces) == b"two"


async def test_nobody_there_is_an_error() -> None:
    async with httpx.AsyncClient(transport=VllmTransport(8, 1.0)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{free_loopback_port()}/")


async def test_what_a_server_closed_is_not_used_again_nor_anything_old_where_that_is_asked_for() -> None:
    """A server that closes connections when they are used again, all of those that were kept: a busy one's clock."""
    used: set[asyncio.StreamWriter] = set()

    async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer in used:
            raise ConnectionError
        used.add(writer)
        await until(lambda: len(used) >= 3)
        writer.write(_EMPTY)

    async with asked(once) as (client, raw):
        await asyncio.gather(*(client.get("/") for _ in range(3)))
        request = client.build_request("GET", "/")
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.send(request)

        request.extensions["new_connection"] = True
        assert (await client.send(request)).status_code == 200
        assert raw.connections == 4


async def test_a_connection_that_is_not_made_is_attempted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the packet that asks a name server was lost: nobody answers, and asking anew helps."""
    loop, attempts = asyncio.get_running_loop(), 0
    make = loop.create_connection

    async def lose_the_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await asyncio.Event().wait()
        return await make(*args, **kwargs)

    async def empty(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_EMPTY)

    monkeypatch.setattr(vllm_transport, "_EARLY_ATTEMPTS_S", (0.05,))
    monkeypatch.setattr(loop, "create_connection", lose_the_first)
    async with asked(empty) as (client, raw):
        assert (await client.get("/")).status_code == 200

        assert attempts == 2
        assert raw.connections == 1


async def test_who_never_answers_ends_with_the_last_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, attempts = asyncio.get_running_loop(), 0

    async def lose(*_: Any, **__: Any) -> Any:
        nonlocal attempts
        attempts += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(vllm_transport, "_EARLY_ATTEMPTS_S", (0.01, 0.01))
    monkeypatch.setattr(loop, "create_connection", lose)
    transport = VllmTransport(8, 30.0)
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(1.0, connect=0.01)) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://127.0.0.1:1/")
    assert attempts == 3


async def silent(*_: Any, **__: Any) -> Any:
    await asyncio.Event().wait()


async def not_now(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize("name_server", [silent, not_now])
async def test_a_known_address_outlives_its_name_server(monkeypatch: pytest.MonkeyPatch, name_server: Any) -> None:
    monkeypatch.setattr(known_addresses, "_PATIENCE_S", 0.02)
    async with asked(saying(_EMPTY)) as (client, raw):
        url = raw.url.replace("127.0.0.1", "localhost")
        assert (await client.get(url, headers={"Connection": "close"})).status_code == 200
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", name_server)

        answers = await asyncio.gather(*(client.get(url) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [200] * 3


async def test_a_server_that_moved_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["127.0.0.1"]

    async def answered(host: str, port: int, **_: Any) -> Any:
        assert host == "vllm.test"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answered)
    known = known_addresses.KnownAddresses()
    assert await known.look_up("vllm.test", 8101) == ("127.0.0.1",)
    addresses[:] = ["127.0.0.2", "127.0.0.3", "127.0.0.2"]
    assert await known.look_up("vllm.test", 8101) == ("127.0.0.2", "127.0.0.3")
    assert await known.look_up("::1", 8101) == ("::1",)


async def test_a_name_that_nobody_ever_knew_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with httpx.AsyncClient(transport=VllmTransport(8, 30.0)) as client:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", not_now)
        with pytest.raises(httpx.ConnectError):
            await client.get("http://vllm.test:8101/")


async def test_many_who_ask_for_a_name_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for, answer = 0, asyncio.Event()

    async def answered(host: str, port: int, **_: Any) -> Any:
        nonlocal asked_for
        asked_for += 1
        await answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answered)
    known = known_addresses.KnownAddresses()
    waiting = [asyncio.create_task(known.look_up("vllm.test", 1)) for _ in range(5)]
    await until(lambda: asked_for > 0)
    await stop(waiting[0])  # whoever hangs up takes nobody's answer along
    answer.set()

    assert await asyncio.gather(*waiting[1:]) == [("127.0.0.1",)] * 4
    assert asked_for == 1


async def test_an_answer_that_comes_before_the_request_was_read_is_taken() -> None:
    async with asked(saying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")) as (client, raw):
        for _ in range(2):
            assert (await client.post("/", content=bytes(2**24))).status_code == 413

    assert raw.connections == 2


@pytest.mark.parametrize("name", ["X-Trace", "traceparent"])
async def test_a_header_cannot_end_before_its_time(name: str) -> None:
    async with asked(saying(_EMPTY)) as (client, raw):
        with pytest.raises(httpx.LocalProtocolError):
            await client.get("/", headers={name: "a\r\nX-Other: b"})

    assert raw.connections == 0


async def test_a_connection_that_says_something_unasked_is_not_used_again() -> None:
    async with asked(saying(_EMPTY, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")) as (client, raw):
        for _ in range(2):
            assert (await client.get("/")).content == b""

    assert raw.connections == 2


async def test_idle_connections_are_closed_after_a_while_and_beyond_their_number() -> None:
    async with asked(saying(_EMPTY), keepalive_s=0.05) as (client, raw):
        await client.get("/")
        await until(lambda: raw.open == 0)
    async with asked(saying(_EMPTY), max_idle=1) as (client, raw):
        await asyncio.gather(client.get("/"), client.get("/"), client.get("/"))
        await until(lambda: raw.open == 1)


async def test_a_response_nobody_reads_is_held_back() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**24)
        for _ in range(2**8):
            writer.write(bytes(2**16))
            await writer.drain()

    async with asked(answer) as (client, _), client.stream("GET", "/") as response:
        await until(lambda: connection_of(client)._read_paused)
        assert connection_of(client)._held_bytes < 2**20
        assert sum([len(piece) async for piece in response.aiter_raw()]) == 2**24


@pytest.mark.parametrize("steps", range(8))
async def test_a_request_that_is_cancelled_leaves_no_connection(steps: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_CHUNKED + b"3\r\none\r\n")
        await reader.read()

    async with asked(answer) as (client, raw):
        asking = asyncio.create_task(client.get("/"))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

        await until(lambda: raw.open == 0)


async def test_closing_the_client_ends_answers_that_still_run() -> None:
    async with asked(saying(_CHUNKED, b"3\r\none\r\n")) as (client, raw):
        response = await client.send(client.build_request("GET", "/"), stream=True)
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        await client.aclose()

        with pytest.raises(httpx.ReadError):
            await anext(pieces)
        await until(lambda: raw.open == 0)


@pytest.mark.parametrize(
    "holds",
    [
        test_what_comes_together_is_read_in_one_piece,
        test_a_connection_is_used_again_and_the_request_is_whole,
        partial(test_a_response_that_breaks_off_or_is_none_is_an_error, _CHUNKED + b"5\r\nhel", httpx.ReadError),
        partial(test_silence_ends_a_response, _CHUNKED),
        test_nobody_there_is_an_error,
        test_an_answer_that_comes_before_the_request_was_read_is_taken,
        test_a_connection_that_says_something_unasked_is_not_used_again,
        test_idle_connections_are_closed_after_a_while_and_beyond_their_number,
        test_a_response_nobody_reads_is_held_back,
        partial(test_a_request_that_is_cancelled_leaves_no_connection, 2),
        partial(test_a_request_that_is_cancelled_leaves_no_connection, 5),
        test_closing_the_client_ends_answers_that_still_run,
    ],
)
def test_the_same_holds_on_uvloop(holds: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The API runs on it where there is one, and its connections differ in detail."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(holds())


async def test_exchanges_that_are_silent_are_given_up_before_the_head_and_behind_it_unless_they_are_patient() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if raw.heads[-1].startswith(b"GET /begins"):
            writer.write(_CHUNKED + b"3\r\none\r\n")
        await reader.read()  # until the client closes

    async with asked(answer) as (client, raw):
        transport = client._transport
        assert isinstance(transport, VllmTransport)
        silent = []
        for path in ("/begins", "/nothing"):
            silent.append(asyncio.create_task(client.get(path)))
            await until(lambda: len(raw.heads) == len(silent))
        patient = asyncio.create_task(client.get("/nothing", extensions={"patient": True}))
        await until(lambda: len(raw.heads) == 3 and any(it._has_head for it in transport._open))
        await until(lambda: all(it._waiter is not None for it in transport._open))

        transport.give_up_silent(60.0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in silent)
        transport.give_up_silent(0.0)
        given_up = await asyncio.gather(*silent, return_exceptions=True)

        assert [type(error) for error in given_up] == [httpx.ReadTimeout] * 2
        assert not patient.done()
        await stop(patient)
