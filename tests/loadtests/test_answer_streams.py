"""The load tests' client: one answer of the API and the same of vLLM look alike; what goes wrong has a name."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from loadtests.answer_streams import AnswerClient, AnswerFailed, Request, StreamedAnswer

API = (
    b': ping\n\nevent: token\ndata: {"text":"No "}\n\n',
    b'event: token\ndata: {"text":"tumour."}\n\nevent: done\ndata: {"conversation_id":"c","usa',
    b'ge":{"completion_tokens":2}}\n\n',
)
VLLM = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":" No "}}]}\n\ndata: {"choices":[{"delta":{"content":"tumour."}}]}\n\n',
    b'data: {"choices":[],"usage":{"completion_tokens":2}}\n\ndata: [DONE]\n\n',
)


def chunked(pieces: Sequence[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def plain(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


class Server:
    """Answers one prepared reply after the other; `hangs_up_after` each of so many on a connection."""

    def __init__(self, replies: Sequence[bytes], hangs_up_after: int) -> None:
        self.replies = list(replies)
        self.hangs_up_after = hangs_up_after
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.hangs_up_after):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"POST /ask HTTP/1.1\r\n")
            assert await reader.readexactly(2) == b"{}"
            writer.write(self.replies.pop(0))
            await writer.drain()
        writer.close()

    def request(self) -> Request:
        return Request(self.url, b"{}")


@asynccontextmanager
async def answering(*replies: bytes, hangs_up_after: int | None = None) -> AsyncIterator[Server]:
    server = Server(replies, hangs_up_after or len(replies))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ask"
        yield server


async def ask_once(request: Request, on_first_text: Callable[[], None] = lambda: None) -> StreamedAnswer:
    client = AnswerClient()
    try:
        return await client.ask(request, on_first_text)
    finally:
        await client.close()


async def failure_of(reply: bytes) -> AnswerFailed:
    async with answering(reply) as server:
        with pytest.raises(AnswerFailed) as failed:
            await ask_once(server.request())
    return failed.value


@pytest.mark.parametrize("pieces", [API, VLLM], ids=["api", "vllm"])
async def test_both_ways_give_the_same_answer(pieces: tuple[bytes, ...]) -> None:
    async with answering(chunked(pieces)) as server:
        answer = await ask_once(server.request())

    assert (answer.text, answer.tokens) == ("No tumour.", 2)
    assert 0 < answer.first_text_s <= answer.total_s
    assert answer.closing.get("conversation_id") == ("c" if pieces is API else None)


async def test_the_clock_of_the_first_text_does_not_stop_at_a_chunk_without_text() -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(chunked(VLLM[:1], end=b""))
        await go_on.wait()
        writer.write(chunked(VLLM[1:]).split(b"\r\n\r\n", 1)[1])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        request = Request(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ask", b"{}")
        begun = asyncio.Event()
        asking = asyncio.create_task(ask_once(request, begun.set))
        await asyncio.sleep(0.05)
        assert not begun.is_set()
        go_on.set()
        assert (await asking).first_text_s >= 0.05


async def test_a_connection_is_kept_and_opened_anew_when_the_server_has_closed_it() -> None:
    async with answering(chunked(API), chunked(API), chunked(API), hangs_up_after=2) as server:
        client = AnswerClient()
        for _ in range(2):
            await client.ask(server.request())
        assert server.connections == 1
        server.hangs_up_after = 1
        await asyncio.sleep(0.02)
        assert (await client.ask(server.request())).tokens == 2
        assert server.connections == 2
        await client.close()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (chunked((API[0], b'event: error\ndata: {"code":"draining","detail":"d"}\n\n')), "draining"),
        (chunked((b'data: {"error":{"code":500,"message":"m"}}\n\n',)), "500"),
        (plain("429 Too Many Requests", b'{"code":"overloaded","detail":"d"}'), "overloaded"),
        (plain("401 Unauthorized", b'{"error":{"code":"no_key","message":"m"}}'), "no_key"),
        (plain("502 Bad Gateway", b"<html>"), "502"),
        (chunked(API[:1], end=b""), "broken"),
        (chunked(API[:1]), "broken"),
        (b"", "broken"),
    ],
)
async def test_an_answer_that_is_none_says_why(reply: bytes, code: str) -> None:
    assert (await failure_of(reply)).code == code


async def test_a_broken_answer_tells_how_far_it_got() -> None:
    assert (await failure_of(chunked(API[:1], end=b""))).text == "No "
