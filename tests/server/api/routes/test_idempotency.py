"""`Idempotency-Key`: what is sent again is answered again and done once; and names that clients give to requests."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from api_parts import problem_of, stored_slide, until
from fakes import FakeVllm
from redis.asyncio import Redis

from server.api.parts import Parts
from server.slides.remembered_replies import IN_FLIGHT_S, KEPT_S
from server.slides.slide_record import SlideRecord

KEY = "0198c2b4-7d3e-7a51-9c1f-2f6d8e4b1a90"


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


async def ask(client: httpx.AsyncClient, slide: str, key: str | None = KEY, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    asked = {"question": "Why?", "stream": False} | body
    return await client.post(f"/v1/slides/{slide}/questions", json=asked, headers=headers)


async def remembered(redis: Redis) -> list[str]:
    return [key.decode() async for key in redis.scan_iter("eyepiece:*idempotency:*")]


async def test_the_same_question_again_gets_the_same_answer_and_is_asked_once(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, redis: Redis
) -> None:
    first, second = await ask(client, ready.id), await ask(client, ready.id)

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert (first.headers.get("Idempotent-Replayed"), second.headers["Idempotent-Replayed"]) == (None, "true")
    assert len(vllm.requests) == 1
    conversation = (await client.get(f"/v1/conversations/{first.json()['conversation_id']}")).json()
    assert len(conversation["turns"]) == 1
    (key,) = await remembered(redis)
    assert KEPT_S - 60 < await redis.ttl(key) <= KEPT_S
    assert KEY not in key


async def test_without_a_key_or_with_another_one_it_is_asked_again(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    for key in (None, None, "one", "two"):
        assert (await ask(client, ready.id, key)).status_code == 200
    assert len(vllm.requests) == 4


async def test_another_request_with_the_same_key_is_refused(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, vllm: FakeVllm
) -> None:
    other = await stored_slide(parts, "other", ready=True)
    await ask(client, ready.id)

    assert problem_of(await ask(client, ready.id, question="Where?"), 422) == "idempotency_key_reused"
    assert problem_of(await ask(client, other.id), 422) == "idempotency_key_reused"
    assert len(vllm.requests) == 1


async def test_a_request_that_is_being_answered_is_not_begun_again(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, redis: Redis
) -> None:
    vllm.hold_before = 1
    running = asyncio.create_task(ask(client, ready.id))
    await until(lambda: bool(vllm.streams))

    again = await ask(client, ready.id)
    assert problem_of(again, 409) == "request_in_flight"
    assert again.headers["Retry-After"] == "2"
    (key,) = await remembered(redis)
    assert 0 < await redis.ttl(key) <= IN_FLIGHT_S
    vllm.streams[0].go_on.set()
    assert (await running).status_code == 200
    assert (await ask(client, ready.id)).headers["Idempotent-Replayed"] == "true"


async def test_what_was_refused_may_be_sent_again(client: httpx.AsyncClient, parts: Parts, redis: Redis) -> None:
    waiting = await stored_slide(parts, "waiting")
    assert problem_of(await ask(client, waiting.id), 409) == "slide_not_ready"
    assert await remembered(redis) == []
    assert problem_of(await ask(client, waiting.id, question=""), 422) == "invalid_request"
    assert problem_of(await ask(client, waiting.id), 409) == "slide_not_ready"


async def test_who_hangs_up_may_ask_again(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, redis: Redis
) -> None:
    vllm.hold_before = 1
    running = asyncio.create_task(ask(client, ready.id))
    await until(lambda: bool(vllm.streams))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    async def is_free() -> bool:
        return await remembered(redis) == []

    await until(is_free)


async def test_an_answer_goes_with_its_slide(client: httpx.AsyncClient, ready: SlideRecord, redis: Redis) -> None:
    await ask(client, ready.id)
    assert (await client.delete(f"/v1/slides/{ready.id}")).status_code == 204

    assert await remembered(redis) == []
    assert [key async for key in redis.scan_iter("eyepiece:*idempotent:*")] == []


async def test_an_encode_that_is_sent_again_is_queued_once(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await stored_slide(parts, ready=True)
    answers = [
        await client.post(f"/v1/slides/{slide.id}/encode", json={"mpp": 0.5}, headers={"Idempotency-Key": KEY})
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].content == answers[0].content
    assert answers[1].headers["Location"] == answers[0].headers["Location"]
    assert (await client.get("/v1/usage")).json()["encodings_today"] == 1


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
async def test_a_key_that_is_none_is_refused(client: httpx.AsyncClient, ready: SlideRecord, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    body = json.dumps({"question": "Why?", "stream": False})
    answer = await client.post(f"/v1/slides/{ready.id}/questions", content=body, headers=headers)
    assert problem_of(answer, 422) == "invalid_request"


async def test_a_stream_with_a_key_is_refused(client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm) -> None:
    refused = await ask(client, ready.id, stream=True)

    assert problem_of(refused, 422) == "invalid_request"
    assert "`stream: false`" in refused.json()["detail"]
    assert vllm.requests == []


@pytest.mark.parametrize("name", ["5e" * 8, "5e" * 32, "0198C2B4-7d3e-7a51-9c1f-2f6d8e4b1a90"])
async def test_a_request_keeps_the_name_that_its_client_gave_it(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get("/v1/slides/unknown", headers={"X-Request-Id": name})

    assert answer.headers["X-Request-Id"] == name
    assert answer.json()["request_id"] == name


@pytest.mark.parametrize("name", ["", "Doe-Jane", "1950-01-01", "5e" * 33, "5E" * 8, "x\r", "é"])
async def test_a_name_that_could_be_a_patients_is_replaced(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get("/v1/slides/unknown", headers={"X-Request-Id": name.encode()})

    assert answer.headers.get_list("X-Request-Id") == [answer.json()["request_id"]]
    assert len(answer.headers["X-Request-Id"]) == 16
    assert answer.headers["X-Request-Id"] != name
