"""Stands in for vLLM where only the API's own time is wanted: answers at once, in vLLM's words, whatever is asked.

python -m loadtests.stand_in_vllm <port>
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from loadtests.load_model import SLIDE_TOKENS

TOKENS = 48
_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_REQUEST_LIMIT_BYTES = 2**22
# So that each token is an event of its own on its way through the API.
_BETWEEN_TOKENS_S = 0.001


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, for as many requests as come."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(_content_length(head))
            if body:
                await _answer(writer, SLIDE_TOKENS if b"image_embeds" in body else 0)
            else:
                writer.write(_HEALTHY)
            await writer.drain()
    writer.close()


def _content_length(head: bytes) -> int:
    found = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].split(b":")[1]) if found else 0


async def _answer(writer: asyncio.StreamWriter, slide_tokens: int) -> None:
    writer.write(_STREAM)
    for _ in range(TOKENS):
        writer.write(_event(json.dumps(_chunk({"content": " word"}))))
        await asyncio.sleep(_BETWEEN_TOKENS_S)
    writer.write(_event(json.dumps({**_chunk(), "choices": [], "usage": _usage(slide_tokens)})))
    writer.write(_event("[DONE]") + b"0\r\n\r\n")


def _event(data: str) -> bytes:
    content = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(content), content)


def _chunk(delta: dict[str, str] | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": None}
    return {"id": "chat", "object": "chat.completion.chunk", "created": 0, "model": "stand-in", "choices": [choice]}


def _usage(slide_tokens: int) -> dict[str, Any]:
    details = {"cached_tokens": 0, "multimodal_tokens": {"image": slide_tokens} if slide_tokens else {}}
    return {"prompt_tokens": 64 + slide_tokens, "completion_tokens": TOKENS, "prompt_tokens_details": details}


async def main(port: int) -> None:
    """Until it is killed."""
    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=_REQUEST_LIMIT_BYTES) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
