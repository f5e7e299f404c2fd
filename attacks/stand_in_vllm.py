"""Stands in for vLLM: answers slowly, word by word, stops when its client is gone, and counts what it works on. Of what
is to be scored each byte is a token, and all are equally likely.

python -m attacks.stand_in_vllm <port> [<share of its pauses>]
"""

import asyncio
import base64
import io
import json
import sys
from contextlib import suppress
from typing import Any

import numpy as np

# As long as a busy GPU takes: whoever hangs up meets an answer half way.
BEFORE_FIRST_S, BETWEEN_TOKENS_S = 0.3, 0.2
_TOKENS = 20
_PROMPT_TOKENS = 64
_LIMIT_BYTES = 2**24
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class StandInVllm:
    """`running` requests are being answered now; `idle` is set while there are none."""

    def __init__(self, pauses: float = 1.0) -> None:
        self._pauses = pauses
        self.running = 0
        self.idle = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = _content_length(head)
            if head.startswith(b"POST"):
                await self._unless_gone(reader, writer, json.loads(await reader.readexactly(length)))
            else:
                writer.write(_whole(f"vllm:num_requests_running {self.running}\n".encode()))
            await writer.drain()
        writer.close()

    async def _unless_gone(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Any) -> None:
        """Answers until the client hangs up."""
        self.running += 1
        self.idle.clear()
        answer, gone = asyncio.ensure_future(_answer(writer, body, self._pauses)), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.running -= 1
            for task in (answer, gone):
                task.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
            if self.running == 0:
                self.idle.set()


async def _answer(writer: asyncio.StreamWriter, body: dict[str, Any], pauses: float) -> None:
    if not body.get("stream"):
        writer.write(_whole(json.dumps(_scores(body)).encode()))
        await writer.drain()
        return
    count = min(int(body.get("max_tokens") or _TOKENS), _TOKENS)
    writer.write(_STREAM)
    await writer.drain()
    await asyncio.sleep(BEFORE_FIRST_S * pauses)
    for _ in range(count):
        writer.write(_event(_chunk({"content": " word"})))
        await writer.drain()
        await asyncio.sleep(BETWEEN_TOKENS_S * pauses)
    usage = _usage(body, count)
    writer.write(_event({**_chunk(finish="stop")}) + _event({**_chunk(), "choices": [], "usage": usage}))
    writer.write(b"data: [DONE]\n\n")
    await writer.drain()


def _usage(body: dict[str, Any], completion_tokens: int, answer_tokens: int = 0) -> dict[str, Any]:
    slide_tokens = _slide_tokens(body)
    details = {"cached_tokens": 0, "multimodal_tokens": {"image": slide_tokens} if slide_tokens else {}}
    prompt_tokens = _PROMPT_TOKENS + slide_tokens + answer_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": details,
    }


def _scores(body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request that asks how likely the last message is, or the first token of an answer."""
    last = body["messages"][-1]
    answer = last["content"].encode() if last["role"] == "assistant" else b""
    usage = _usage(body, 1, len(answer))
    before = usage["prompt_tokens"] - len(answer) - 1
    tokens = [{str(token): {"logprob": -1.0}} for token in (*[0] * before, *answer)]
    top = [{"token": "Yes", "logprob": -0.5}, {"token": "No", "logprob": -1.0}]
    choice = {"index": 0, "finish_reason": "length", "logprobs": {"content": [{"top_logprobs": top}]}}
    return {"choices": [choice], "prompt_logprobs": [None, *tokens], "usage": usage}


def _slide_tokens(body: dict[str, Any]) -> int:
    contents = [it["content"] for it in body["messages"] if isinstance(it["content"], list)]
    tensors = [part["image_embeds"] for content in contents for part in content if part["type"] == "image_embeds"]
    return sum(len(np.load(io.BytesIO(base64.b64decode(it)), allow_pickle=False)) for it in tensors)


def _content_length(head: bytes) -> int:
    found = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].split(b":")[1]) if found else 0


def _whole(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _chunk(delta: dict[str, str] | None = None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return {"id": "chat", "object": "chat.completion.chunk", "created": 0, "model": "stand-in", "choices": [choice]}


async def main(port: int, pauses: float = 1.0) -> None:
    """Until it is killed."""
    serve = StandInVllm(pauses).serve
    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=_LIMIT_BYTES, backlog=512) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
