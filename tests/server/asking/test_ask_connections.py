"""Connections to vLLM are used again, and one that it closed meanwhile costs no question."""

import asyncio
from contextlib import suppress

import pytest
from fakes import sse, token_chunk

import server.asking.language_model
from server.asking.language_model import LanguageModel, Message, Sampling, Token
from server.asking.vllm_client import VllmClient
from server.embeddings.slide_inputs import SlideInputs

INPUTS = SlideInputs("digest", "secret")
SAMPLING = Sampling(max_tokens=9, temperature=0.0)


class RawVllm:
    """An HTTP server of ours that answers each connection's requests as told, and counts connections."""

    def __init__(self, *, answers: int = 100, end: bytes = b"0\r\n\r\n") -> None:
        self.connections = 0
        self.ended = asyncio.Semaphore(0)
        self._answers = answers
        self._end = end

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`answers` streams, then the connection is closed as the next request comes in."""
        self.connections += 1
        answers = self._answers if self.connections == 1 else 100
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                answers -= 1
                if answers < 0:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for piece in sse(token_chunk("x", slide_tokens=0)):
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0.02)  # vLLM's last chunk comes behind what it says
                writer.write(self._end)
        writer.close()
        await writer.wait_closed()
        self.ended.release()


async def ask_twice(vllm: RawVllm) -> None:
    async with await asyncio.start_server(vllm.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        model = LanguageModel(VllmClient(f"http://127.0.0.1:{port}", ""), "demo", INPUTS)
        for _ in range(2):
            answer = await model.open("a", [Message("user", "Why?")], SAMPLING)
            pieces = [piece async for piece in answer.pieces()]
            await answer.close()
            assert pieces[0] == Token("x")
        await model.aclose()
        for _ in range(vllm.connections):
            await vllm.ended.acquire()


async def test_the_next_question_takes_the_same_connection() -> None:
    vllm = RawVllm()

    await ask_twice(vllm)

    assert vllm.connections == 1


async def test_a_connection_that_was_closed_while_idle_costs_no_question() -> None:
    vllm = RawVllm(answers=1)

    await ask_twice(vllm)

    assert vllm.connections == 2


async def test_a_stream_that_does_not_end_behind_its_last_event_delays_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.asking.language_model, "_END_S", 0.05)
    vllm = RawVllm(end=b"")

    await ask_twice(vllm)

    assert vllm.connections == 2
