"""Bodies that do not come: given up with a reason, whatever route they were for, and their slots free again."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from api_parts import client_of, problem_of, stored_slide, upload
from fastapi import FastAPI, HTTPException
from starlette.types import Message, Receive, Scope, Send

from server.api.body_rate import BodyRate
from server.api.parts import Parts

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
FILE_BEGUN = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


async def stalled(first: bytes) -> AsyncIterator[bytes]:
    yield first
    await asyncio.Event().wait()


async def test_idle_uploads_are_given_up_and_lock_nobody_out(
    make_app: Callable[..., FastAPI], sample_slide: bytes
) -> None:
    app = make_app(body_window_s=0.2)
    parts: Parts = app.state.parts

    async with client_of(app) as client:
        idle = [client.post("/v1/slides", content=stalled(FILE_BEGUN), headers=FORM) for _ in range(20)]
        refused = await asyncio.gather(*idle)
        accepted = await upload(client, sample_slide)

    codes = {answer.status_code: problem_of(answer, answer.status_code) for answer in refused}
    assert codes == {408: "body_too_slow", 429: "overloaded"}
    assert {a.headers["Connection"] for a in refused if a.status_code == 408} == {"close"}
    assert accepted.status_code == 202
    assert parts.upload_slots._free == parts.settings.max_concurrent_uploads
    assert list(parts.store.staging_dir.iterdir()) == []


@pytest.mark.parametrize("route", ["questions", "encode", "features", "chat"])
async def test_every_body_has_the_same_least_rate(make_app: Callable[..., FastAPI], route: str) -> None:
    app = make_app(body_window_s=0.05)
    record = await stored_slide(app.state.parts, ready=True)
    path = "/v1/chat/completions" if route == "chat" else f"/v1/slides/{record.id}/{route}"
    headers = FORM if route == "features" else {"Content-Type": "application/json"}

    async with client_of(app) as client:
        method, begun = ("PUT", FILE_BEGUN) if route == "features" else ("POST", b'{"question"')
        answer = await client.request(method, path, content=stalled(begun), headers=headers)

    assert answer.status_code == 408
    body = answer.json()
    assert (body["error"] if route == "chat" else body)["code"] == "body_too_slow"


async def test_a_body_that_drips_is_given_up_too(make_app: Callable[..., FastAPI]) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        yield FILE_BEGUN
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    async with client_of(make_app(body_window_s=0.2)) as client:
        answer = await client.post("/v1/slides", content=dripping(), headers=FORM)

    assert problem_of(answer, 408) == "body_too_slow"


async def test_a_drip_within_the_rate_may_take_as_long_as_it_likes() -> None:
    """4 bytes every 20 ms where 8 are asked for in 400 ms: never behind, and two windows long in all."""
    seen = await read_through(BodyRate(read_all, bytes_per_s=20, window_s=0.4), pieces=40, wait_s=0.02)

    assert seen == 160


async def test_the_time_that_we_need_for_a_body_is_not_the_clients() -> None:
    async def reads_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await read_all(scope, receive, send)

    assert await read_through(BodyRate(reads_slowly, bytes_per_s=10**6, window_s=0.02), pieces=3, wait_s=0) == 12


async def test_the_hang_up_behind_a_body_is_waited_for() -> None:
    async def waits_for_it(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    await read_through(BodyRate(waits_for_it, bytes_per_s=10**6, window_s=0.01), pieces=1, wait_s=0, hang_up_s=0.05)


async def test_a_rate_of_0_sets_no_limit() -> None:
    assert await read_through(BodyRate(read_all, bytes_per_s=0, window_s=0.001), pieces=2, wait_s=0.01) == 8


async def test_what_is_behind_ends_with_a_408() -> None:
    with pytest.raises(HTTPException) as caught:
        await read_through(BodyRate(read_all, bytes_per_s=10**6, window_s=0.02), pieces=100, wait_s=0.01)

    assert caught.value.status_code == httpx.codes.REQUEST_TIMEOUT


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    received, more = 0, True
    while more:
        message = await receive()
        received += len(message["body"])
        more = message["more_body"]
    await send({"type": "received", "bytes": received})


async def read_through(app: BodyRate, *, pieces: int, wait_s: float, hang_up_s: float = 0.0) -> int:
    """How many bytes the app behind `app` says that it got."""
    left, received = pieces, 0

    async def receive() -> Message:
        nonlocal left
        if left == 0:
            await asyncio.sleep(hang_up_s)
            return {"type": "http.disconnect"}
        await asyncio.sleep(wait_s)
        left -= 1
        return {"type": "http.request", "body": b"four", "more_body": left > 0}

    async def send(message: Message) -> None:
        nonlocal received
        received = message["bytes"]

    await app({"type": "http"}, receive, send)
    return received
