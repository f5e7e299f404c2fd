"""Clients that hang up: over real connections to a real uvicorn, because only there do they hang up."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from api_parts import stored_slide, until
from fakes import FakeVllm
from fastapi import FastAPI
from redis.asyncio import Redis
from served_app import request_of, served
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope

import server.api.stream
from server.api.drain import Drain
from server.api.parts import Parts
from server.api.stream import errors_as_events, openai_response, sse_response
from server.errors import LanguageModelFailed
from server.slides.progress import Event
from server.slides.slide_record import SlideRecord


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


def running(parts: Parts) -> float:
    return parts.metrics.registry.get_sample_value("eyepiece_questions_running", {"model": "demo"}) or 0.0


def slot_is_free(parts: Parts) -> bool:
    return parts.question_slots._free == parts.settings.max_concurrent_questions


async def assert_all_is_freed(parts: Parts, vllm: FakeVllm) -> None:
    await asyncio.wait_for(vllm.streams[0].closed.wait(), 30)
    await until(lambda: slot_is_free(parts))
    assert running(parts) == 0
    cancelled = parts.metrics.registry.get_sample_value(
        "eyepiece_questions_total", {"model": "demo", "outcome": "cancelled"}
    )
    assert cancelled in (1, None)


@pytest.mark.parametrize("kind", ["question", "chat"])
async def test_hanging_up_in_mid_stream_stops_the_model_and_frees_the_slot(
    app: FastAPI, parts: Parts, vllm: FakeVllm, ready: SlideRecord, kind: str
) -> None:
    vllm.hold_before = 1
    path, body = request_of(kind, ready.id, True)

    async with served(app) as client:
        async with client.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_text():
                if "No " in chunk:
                    break
            assert running(parts) == 1
        await assert_all_is_freed(parts, vllm)


@pytest.mark.parametrize("kind", ["question", "chat"])
async def test_hanging_up_before_the_first_token_stops_the_model_too(
    app: FastAPI, parts: Parts, vllm: FakeVllm, ready: SlideRecord, kind: str
) -> None:
    vllm.hold_before = 0
    path, body = request_of(kind, ready.id, True)

    async with served(app) as client:
        async with client.stream("POST", path, json=body):
            await until(lambda: bool(vllm.streams))
        await assert_all_is_freed(parts, vllm)


@pytest.mark.parametrize("kind", ["question", "chat"])
async def test_hanging_up_on_an_answer_in_one_piece_stops_the_model_too(
    app: FastAPI, parts: Parts, vllm: FakeVllm, ready: SlideRecord, kind: str
) -> None:
    vllm.hold_before = 1
    path, body = request_of(kind, ready.id, False)

    async with served(app) as client:
        asking = asyncio.create_task(client.post(path, json=body))
        await until(lambda: bool(vllm.streams))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await assert_all_is_freed(parts, vllm)


async def test_hanging_up_on_events_ends_them(app: FastAPI, parts: Parts, redis: Redis) -> None:
    record = await stored_slide(parts)
    await parts.progress.append("default", record.id, Event("progress", {"stage": "tile", "done": 1, "total": 2}))

    async def followers(count: int) -> bool:
        return int((await redis.info("clients"))["blocked_clients"]) == count

    async with served(app) as client:
        async with client.stream("GET", f"/v1/slides/{record.id}/events") as answer:
            assert "progress" in await anext(answer.aiter_text())
            await until(lambda: followers(1))
        await until(lambda: followers(0))


async def test_hanging_up_in_mid_upload_leaves_nothing(app: FastAPI, parts: Parts) -> None:
    begun = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + bytes(2**21)
        begun.set()
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with served(app) as client:
        sending = asyncio.create_task(client.post("/v1/slides", content=slowly(), headers=headers))
        await begun.wait()
        await until(lambda: bool(list(parts.store.staging_dir.iterdir())))
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: not list(parts.store.staging_dir.iterdir()))
        await until(lambda: parts.upload_slots._free == parts.settings.max_concurrent_uploads)


SCOPE: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def test_a_client_gone_before_the_first_event_frees_everything() -> None:
    freed: list[str] = []

    async def events() -> AsyncGenerator[Event, None]:
        freed.append("started")
        yield Event("token", {})

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def refuse(_: Message) -> None:
        raise OSError("closed")

    resources = AsyncExitStack()
    resources.callback(freed.append, "resources")
    for version in ("2.0", "2.4"):
        scope = {**SCOPE, "asgi": {"spec_version": version}}
        with suppress(ClientDisconnect, OSError):
            await sse_response(events(), Drain().cut, resources)(scope, gone, refuse)

    assert freed == ["resources"]


async def test_the_generator_is_closed_before_the_resources_when_sending_fails() -> None:
    order: list[str] = []

    async def events() -> AsyncGenerator[Event, None]:
        try:
            while True:
                yield Event("token", {"text": "x"})
        finally:
            order.append("generator")

    async def never() -> Message:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def fail_later(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("closed")

    resources = AsyncExitStack()
    resources.callback(order.append, "resources")
    with pytest.raises(ClientDisconnect):
        await sse_response(events(), Drain().cut, resources)(
            {**SCOPE, "asgi": {"spec_version": "2.4"}}, never, fail_later
        )

    assert order == ["generator", "resources"]


async def test_an_error_becomes_the_last_event() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield Event("token", {"text": "x"})
        raise LanguageModelFailed("It broke off.")

    seen = [event async for event in errors_as_events(events())]

    assert [event.name for event in seen] == ["token", "error"]
    assert seen[-1].data == {"code": "language_model_failed", "detail": "It broke off."}


class Client:
    """Takes what is sent, as uvicorn does; with `reads` unset it does not."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended = False
        self.waiting = 0
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> Message:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(self, message: Message) -> None:
        self.waiting += 1
        await self.reads.wait()
        self.waiting -= 1
        if message["type"] == "http.response.body":
            self.bodies += [message["body"]] if message["body"] else []
            self.ended = not message["more_body"]


async def streamed(response: Any, client: Client) -> None:
    await response({**SCOPE, "asgi": {"spec_version": "2.3"}}, client.receive, client.send)


async def test_each_event_is_sent_as_it_comes_in_the_form_of_its_dialect() -> None:
    async def events() -> AsyncGenerator[Event, None]:
        yield Event("progress", {"stage": "tile"}, "5-0")
        yield Event("token", {"text": "a\nb\u2028ü"})

    async def chunks() -> AsyncGenerator[dict[str, Any], None]:
        yield {"choices": [{"delta": {"content": "a\nb"}}]}

    native, openai = Client(), Client()
    await streamed(sse_response(events(), Drain().cut), native)
    await streamed(openai_response(chunks(), Drain().cut, AsyncExitStack()), openai)

    assert native.bodies == [
        b'event: progress\ndata: {"stage":"tile"}\nid: 5-0\n\n',
        'event: token\ndata: {"text":"a\\nb\u2028ü"}\n\n'.encode(),
    ]
    assert openai.bodies == [b'data: {"choices":[{"delta":{"content":"a\\nb"}}]}\n\n', b"data: [DONE]\n\n"]
    assert native.ended
    assert openai.ended


@pytest.mark.parametrize("kind", ["native", "openai"])
async def test_a_stream_that_is_cut_says_so_and_frees_everything(kind: str) -> None:
    freed: list[str] = []
    waits = asyncio.Event()

    async def items(first: Any) -> AsyncGenerator[Any, None]:
        try:
            yield first
            waits.set()
            await asyncio.Event().wait()
        finally:
            freed.append("generator")

    drain, client, resources = Drain(), Client(), AsyncExitStack()
    resources.callback(freed.append, "resources")
    if kind == "native":
        response: Any = sse_response(items(Event("token", {"text": "x"})), drain.cut, resources)
    else:
        response = openai_response(items({"x": 1}), drain.cut, resources)
    streaming = asyncio.create_task(streamed(response, client))
    await waits.wait()
    drain.cut.set_result(None)
    await streaming

    first, *last = client.bodies
    assert b"x" in first
    assert b"draining" in last[0]
    assert client.ended
    assert freed == ["generator", "resources"]
    assert (b"".join(last)).endswith(b"data: [DONE]\n\n") == (kind == "openai")


async def test_a_quiet_stream_shows_that_it_lives_and_one_that_is_not_read_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.api.stream, "_KEEPALIVE_S", 0.01)
    go_on = asyncio.Event()

    async def events() -> AsyncGenerator[Event, None]:
        await go_on.wait()
        yield Event("token", {"text": "x"})

    client = Client()
    response = sse_response(events(), Drain().cut)
    streaming = asyncio.create_task(streamed(response, client))
    await until(lambda: len(client.bodies) >= 2)
    client.reads.clear()
    go_on.set()
    await until(lambda: response._is_sending)
    shown, sent_at = len(client.bodies), response._sent_at
    # It would have been time for another, unless one was on its way just before the event.
    await until(lambda: response._sent_at != sent_at or client.waiting == 2)
    client.reads.set()
    await streaming

    assert set(client.bodies[:shown]) == {b": ping\n\n"}
    assert client.bodies[-1] == b'event: token\ndata: {"text":"x"}\n\n'
    assert len(client.bodies) <= shown + 2


async def test_what_breaks_in_the_making_ends_the_stream_and_frees_everything() -> None:
    freed: list[str] = []

    async def events() -> AsyncGenerator[Event, None]:
        yield Event("token", {"text": "x"})
        raise RuntimeError("a bug")

    resources = AsyncExitStack()
    resources.callback(freed.append, "resources")
    client = Client()
    with pytest.raises(RuntimeError, match="a bug"):
        await streamed(sse_response(events(), Drain().cut, resources), client)

    assert freed == ["resources"]
    assert not client.ended
