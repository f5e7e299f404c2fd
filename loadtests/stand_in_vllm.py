"""Stands in for vLLM where only the API's own time is wanted: answers at once, in vLLM's words, whatever is asked.

python -m loadtests.stand_in_vllm <port> [<seconds of a step>]

All answers that run get their next token in the same step, as vLLM's engine makes them, each in a piece of its own.
"""

import asyncio
import json
import re
import sys
from contextlib import suppress
from functools import partial
from typing import Any

from loadtests.load_model import SLIDE_TOKENS

_TOKENS = 48
_WORD = {"content": " word"}
_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_REQUEST_LIMIT_BYTES = 2**22
# So that each token is an event of its own on its way through the API.
_STEP_S = 0.001


async def serve(step_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, for as many requests as come."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(_content_length(head))
            if body:
                await _answer(writer, SLIDE_TOKENS if b"image_embeds" in body else 0, _tokens_wanted(body), step_s)
            else:
                writer.write(_HEALTHY)
            await writer.drain()
    writer.close()


def _tokens_wanted(body: bytes) -> int:
    """Without parsing a megabyte of slide: the number stands behind the messages."""
    found = re.search(rb'"max_tokens":(\d+)', body[body.rfind(b'"stream"') :])
    return int(found[1]) if found else _TOKENS


def _content_length(head: bytes) -> int:
    found = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].split(b":")[1]) if found else 0


async def _answer(writer: asyncio.StreamWriter, slide_tokens: int, tokens: int, step_s: float) -> None:
    clock = asyncio.get_running_loop().time
    first, word = (_event(json.dumps(_chunk(delta))) for delta in ({"role": "assistant", "content": ""}, _WORD))
    writer.write(_STREAM + first)
    for _ in range(tokens):
        await asyncio.sleep(step_s - clock() % step_s)
        writer.write(word)
    end = {**_chunk({}), "choices": [{**_chunk({})["choices"][0], "finish_reason": "length"}]}
    writer.write(_event(json.dumps(end)))
    writer.write(_event(json.dumps({**_chunk({}), "choices": [], "usage": _usage(slide_tokens, tokens)})))
    writer.write(_event("[DONE]"))
    writer.write(b"0\r\n\r\n")


def _event(data: str) -> bytes:
    content = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(content), content)


def _chunk(delta: dict[str, str]) -> dict[str, Any]:
    """As long as vLLM's."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
    return {
        "id": f"chatcmpl-{'0' * 32}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "stand-in",
        "choices": [choice],
    }


def _usage(slide_tokens: int, tokens: int) -> dict[str, Any]:
    details = {"cached_tokens": 0, "multimodal_tokens": {"image": slide_tokens} if slide_tokens else {}}
    return {"prompt_tokens": 64 + slide_tokens, "completion_tokens": tokens, "prompt_tokens_details": details}


async def main(port: int, step_s: float) -> None:
    """Until it is killed."""
    answer = partial(serve, step_s)
    async with await asyncio.start_server(
        answer, "127.0.0.1", port, limit=_REQUEST_LIMIT_BYTES, backlog=512
    ) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else _STEP_S))
