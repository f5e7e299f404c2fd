"""Clients that hang up by the dozen, at every stage: no connection is left, no request of theirs runs on in vLLM."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from api_parts import stored_slide, until
from fastapi import FastAPI
from held_vllm import HeldVllm, Stage, held_vllm
from redis.asyncio import Redis
from served_app import request_of, served

from server.api.parts import Parts
from server.asking.language_model import LanguageModel
from server.asking.served_models import ServedModels
from server.asking.vllm_client import VllmClient

_CLIENTS = 24


@asynccontextmanager
async def asking(make_app: Callable[..., FastAPI], stage: Stage) -> AsyncIterator[tuple[Parts, HeldVllm, int]]:
    """The API over real connections to a vLLM that goes as far as `stage`, and the API's port."""
    app = make_app()
    async with held_vllm(stage) as vllm:
        built: Parts = app.state.parts
        client = VllmClient(f"http://127.0.0.1:{vllm.port}", "")
        default = built.models.default
        spoken_to = LanguageModel(client, "demo", default.slide_inputs)
        models = ServedModels([dataclasses.replace(default, language_model=spoken_to)])
        parts = app.state.parts = dataclasses.replace(built, models=models)
        async with served(app) as http:
            yield parts, vllm, http.base_url.port or 0
        await client.aclose()


def http_bytes(method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def connections_of(port: int) -> list[str]:
    """The states of this process' connections to or from a port of its own."""
    found = psutil.Process().net_connections("tcp")
    return [it.status for it in found if it.raddr and port in (it.raddr.port, it.laddr.port)]


async def nothing_is_left(parts: Parts, vllm: HeldVllm, port: int) -> None:
    await until(lambda: not connections_of(port))
    await until(lambda: vllm.running == 0)
    await until(lambda: not connections_of(vllm.port))
    await until(lambda: parts.question_slots._free == parts.settings.max_concurrent_questions)
    await until(lambda: parts.drain._running == 0)


@pytest.mark.parametrize("stage", ["headers", "first token", "second token"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["question", "chat"])
async def test_nothing_is_left_of_those_who_waited(
    make_app: Callable[..., FastAPI], kind: str, stream: bool, stage: Stage
) -> None:
    async with asking(make_app, stage) as (parts, vllm, port):
        record = await stored_slide(parts, ready=True)
        sent = http_bytes("POST", *request_of(kind, record.id, stream))
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_CLIENTS)]
        for _, writer in clients:
            writer.write(sent)
        await until(lambda: vllm.running == _CLIENTS)
        if stream and stage != "headers":
            await asyncio.gather(*(reader.readuntil(b"event-stream") for reader, _ in clients))
        for _, writer in clients:
            writer.transport.abort()

        await nothing_is_left(parts, vllm, port)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["question", "chat"])
async def test_nothing_is_left_of_those_who_did_not(make_app: Callable[..., FastAPI], kind: str, stream: bool) -> None:
    """Gone a moment after they asked, each a little later: whatever the API was doing just then."""
    async with asking(make_app, "first token") as (parts, vllm, port):
        record = await stored_slide(parts, ready=True)
        sent = http_bytes("POST", *request_of(kind, record.id, stream))
        for turns in range(2 * _CLIENTS):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            for _ in range(turns):
                await asyncio.sleep(0)
            writer.transport.abort()

        await nothing_is_left(parts, vllm, port)


async def test_nothing_is_left_of_those_who_followed_events(make_app: Callable[..., FastAPI], redis: Redis) -> None:
    async with asking(make_app, "headers") as (parts, _, port):
        record = await stored_slide(parts)
        sent = http_bytes("GET", f"/v1/slides/{record.id}/events")
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_CLIENTS)]
        for _, writer in clients:
            writer.write(sent)

        async def followers() -> int:
            return int((await redis.info("clients"))["blocked_clients"])

        async def all_follow() -> bool:
            return await followers() == _CLIENTS

        async def none_follows() -> bool:
            return await followers() == 0

        await until(all_follow)
        for _, writer in clients:
            writer.transport.abort()

        await until(none_follows)
        await until(lambda: not connections_of(port))
        await until(lambda: parts.follower_slots._free == parts.settings.max_concurrent_followers)
        assert not parts.redis.connection_pool._in_use_connections
