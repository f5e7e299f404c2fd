"""Rate limits over a real Redis: what a tenant and a key may send in a minute, and what they are told."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_parts import client_of, problem_of, stored_slide
from fastapi import FastAPI
from redis.asyncio import Redis

from server.admission.rate_limits import RateLimits, RatePace
from server.errors import RateLimited
from server.identity.api_keys import create_key
from server.settings import Settings

NONE = RateLimits()


class Clock:
    """A Redis whose time stands still: buckets do not fill while a slow machine works."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def register_script(self, script: str) -> Any:
        assert "redis.call('TIME')" in script
        return self._redis.register_script(script.replace("redis.call('TIME')", "{1764382320, 0}"))


@pytest.fixture
def stopped(redis: Redis) -> Any:
    return Clock(redis)


async def admitted(pace: RatePace, tenant: str = "a", caller: str = "k", also: Any = None, times: int = 100) -> int:
    """How many of so many requests are let in, a few at once: each opens a connection, and a slow machine gives up on
    a hundred."""
    answers: list[Any] = []
    while len(answers) < times:
        several = [pace.admit(tenant, caller, also) for _ in range(min(5, times - len(answers)))]
        answers += await asyncio.gather(*several, return_exceptions=True)
    assert all(isinstance(it, RateLimited | dict) for it in answers)
    return sum(not isinstance(it, RateLimited) for it in answers)


async def test_a_minutes_worth_may_come_at_once_and_no_more(stopped: Any) -> None:
    pace = RatePace(stopped, RateLimits(requests=40), {}, NONE)

    assert await admitted(pace) == 40
    assert await admitted(pace, tenant="b", times=10) == 10


async def test_replicas_count_together(stopped: Any) -> None:
    paces = [RatePace(stopped, RateLimits(requests=10), {}, NONE) for _ in range(3)]

    assert sum([await admitted(pace, times=10) for pace in paces]) == 10


async def test_a_key_has_a_limit_of_its_own_below_its_tenants(stopped: Any) -> None:
    pace = RatePace(stopped, RateLimits(requests=30), {}, RateLimits(requests=20))

    assert await admitted(pace, caller="first", times=25) == 20
    # What was refused was not counted for the tenant either.
    assert await admitted(pace, caller="second", times=25) == 10


async def test_questions_are_counted_beside_requests(stopped: Any) -> None:
    pace = RatePace(stopped, RateLimits(requests=50, questions=5), {}, NONE)

    assert await admitted(pace, also="questions", times=10) == 5
    assert await admitted(pace, times=60) == 45


async def test_a_tenant_may_have_other_limits(stopped: Any) -> None:
    tenants = {"a": RateLimits(requests=0), "b": RateLimits(requests=3)}
    pace = RatePace(stopped, RateLimits(requests=5, questions=2), tenants, NONE)

    assert await admitted(pace, tenant="a", times=50) == 50
    assert await admitted(pace, tenant="a", also="questions", times=5) == 2
    assert await admitted(pace, tenant="b", times=5) == 3
    assert await admitted(pace, tenant="c", times=9) == 5


async def test_a_refusal_says_when_there_is_room_again(stopped: Any, redis: Redis) -> None:
    pace = RatePace(stopped, RateLimits(requests=2), {}, NONE)
    assert (await pace.admit("a", "k", None))["RateLimit-Remaining"] == "1"
    assert (await pace.admit("a", "k", None)) == {
        "RateLimit-Limit": "2",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "60",
    }
    with pytest.raises(RateLimited) as refused:
        await pace.admit("a", "k", None)

    assert refused.value.retry_after_s == 30
    key = "eyepiece:{a}:rate:requests:tenant"
    await redis.set(key, float(await redis.get(key)) - 30, keepttl=True)  # half a minute passes
    await pace.admit("a", "k", None)
    with pytest.raises(RateLimited):
        await pace.admit("a", "k", None)


async def test_uploaded_bytes_are_owed_and_the_next_upload_waits(stopped: Any) -> None:
    pace = RatePace(stopped, RateLimits(upload_bytes=1_000_000), {}, NONE)
    await pace.admit("a", "k", "upload_bytes")
    await pace.count_uploaded("a", "k", 3_000_000)

    with pytest.raises(RateLimited) as refused:
        await pace.admit("a", "k", "upload_bytes")
    assert refused.value.retry_after_s == 120
    await pace.admit("a", "k", None)
    await pace.admit("b", "k", "upload_bytes")


async def test_nothing_is_asked_of_redis_where_there_is_no_limit(settings_without_redis: Settings) -> None:
    from server.storage.redis_client import connect_redis

    client = connect_redis(settings_without_redis)
    assert await RatePace(client, NONE, {}, NONE).admit("a", "k", "questions") == {}
    # With one, everybody is let in while Redis is away: questions have their own need of it.
    assert await RatePace(client, RateLimits(requests=1), {}, NONE).admit("a", "k", None) == {}
    await client.aclose()


async def test_the_api_refuses_with_headers_and_by_tenant_and_key(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(require_key=True, rate_limits=RateLimits(requests=6), caller_rate_limits=RateLimits(requests=3))
    store = app.state.parts.store
    keys = [await create_key(store, tenant) for tenant in ("a", "a", "a", "b")]
    statuses: list[list[int]] = []
    for key in keys:
        async with client_of(app, key) as client:
            answers = [await client.get("/v1/slides") for _ in range(4)]
        statuses.append([answer.status_code for answer in answers])
        last = answers[-1]
        assert problem_of(last, 429) == "rate_limited"
        assert 1 <= int(last.headers["Retry-After"]) <= 60
        assert last.headers["RateLimit-Remaining"] == "0"
        if answers[0].is_success:
            assert answers[0].headers["RateLimit-Limit"] in ("3", "6")

    assert statuses == [[200, 200, 200, 429], [200, 200, 200, 429], [429] * 4, [200, 200, 200, 429]]


async def test_a_credential_that_is_refused_is_not_counted(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(require_key=True, rate_limits=RateLimits(requests=2))
    async with client_of(app, "eyp_" + "a" * 43) as client:
        assert [(await client.get("/v1/slides")).status_code for _ in range(3)] == [401] * 3
    async with client_of(app) as client:
        assert (await client.get("/livez")).status_code == 200


async def test_both_dialects_count_as_questions(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(rate_limits=RateLimits(questions=2))
    slide = (await stored_slide(app.state.parts, ready=True)).id
    part = [{"type": "slide", "slide": {"id": slide}}, {"type": "text", "text": "Why?"}]
    chat = {"model": "demo", "messages": [{"role": "user", "content": part}]}
    async with client_of(app) as client:
        first = await client.post(f"/v1/slides/{slide}/questions", json={"question": "Why?"})
        second = await client.post("/v1/chat/completions", json=chat)
        third = await client.post(f"/v1/slides/{slide}/questions", json={"question": "Why?"})
        fourth = await client.post("/v1/chat/completions", json=chat)
        assert (await client.get("/v1/slides")).status_code == 200

    assert (first.status_code, second.status_code) == (200, 200)
    assert problem_of(third, 429) == "rate_limited"
    assert (fourth.status_code, fourth.json()["error"]["code"]) == (429, "rate_limited")


async def test_bytes_of_an_upload_are_counted_also_when_it_is_refused(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(rate_limits=RateLimits(upload_bytes=1000))

    async def send(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/slides", files={"file": ("slide.svs", b"not a slide" * 1000)})

    async with client_of(app) as client:
        assert problem_of(await send(client), 415) == "unsupported_format"
        assert problem_of(await send(client), 429) == "rate_limited"
