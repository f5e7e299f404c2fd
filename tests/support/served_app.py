"""The API behind a real uvicorn, for tests of what only real connections do, and a question in both dialects."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from contract import CheckedClient, contract_of
from fastapi import FastAPI


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a real connection to the app."""
    # Named as TCP, or asyncio leaves Nagle's algorithm on: 40 ms for every answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with CheckedClient(contract_of(app), base_url=url, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


def request_of(kind: str, slide: str, stream: bool) -> tuple[str, dict[str, Any]]:
    """Path and body of a question about a slide, as `question` or as `chat`."""
    if kind == "question":
        return f"/v1/slides/{slide}/questions", {"question": "Why?", "stream": stream}
    part = {"type": "slide", "slide": {"id": slide}}
    content = [part, {"type": "text", "text": "Why?"}]
    return "/v1/chat/completions", {
        "model": "demo",
        "stream": stream,
        "messages": [{"role": "user", "content": content}],
    }
