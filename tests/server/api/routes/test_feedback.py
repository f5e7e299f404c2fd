"""Feedback through the whole API: given, changed, taken back, exported, and gone with what it is about."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from api_parts import problem_of, stored_slide
from redis.asyncio import Redis

from server.api.parts import Parts
from server.slides.slide_record import SlideRecord


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


async def asked(client: httpx.AsyncClient, slide: SlideRecord, question: str = "Why?", **more: Any) -> httpx.Response:
    body = {"question": question, "stream": False, **more}
    return await client.post(f"/v1/slides/{slide.id}/questions", json=body)


async def turn_of(client: httpx.AsyncClient, slide: SlideRecord, question: str = "Why?") -> str:
    """The address of the feedback on a new turn."""
    told = (await asked(client, slide, question)).json()
    return f"/v1/conversations/{told['conversation_id']}/turns/{told['turn']}/feedback"


async def exported(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/feedback", params=query)
    assert answer.headers["Content-Type"] == "application/jsonl"
    return [orjson.loads(line) for line in answer.content.splitlines()]


async def test_a_verdict_is_kept_with_what_it_is_about(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    answer = await asked(client, ready, "Is it benign?")
    told = answer.json()
    place = f"/v1/conversations/{told['conversation_id']}/turns/1/feedback"

    given = await client.put(place, json={"verdict": "disagree", "words": "  It is not.\u2028Look. "})

    assert given.json() | {"answered_at": "", "given_at": ""} == {
        "object": "feedback",
        "slide_id": ready.id,
        "conversation_id": told["conversation_id"],
        "turn": 1,
        "question": "Is it benign?",
        "answer": "No tumour.",
        "model": "demo",
        "encoder_id": ready.encoder_id,
        "request_id": answer.headers["X-Request-Id"],
        "region_id": None,
        "verdict": "disagree",
        "words": "It is not.\u2028Look.",
        "answered_at": "",
        "given_at": "",
    }
    assert (await client.get(place)).json() == given.json()
    assert await exported(client) == [given.json()]


async def test_the_same_verdict_again_changes_nothing_and_another_one_replaces_it(
    client: httpx.AsyncClient, ready: SlideRecord
) -> None:
    place = await turn_of(client, ready)

    first = (await client.put(place, json={"verdict": "unsure"})).json()
    again = (await client.put(place, json={"verdict": "unsure", "words": " \n "})).json()
    changed = (await client.put(place, json={"verdict": "agree", "words": "Yes."})).json()

    assert first == again
    assert (changed["verdict"], changed["words"]) == ("agree", "Yes.")
    assert await exported(client) == [changed]


async def test_an_export_outlives_the_conversation_and_goes_on_where_the_last_one_ended(
    client: httpx.AsyncClient, ready: SlideRecord, redis: Redis
) -> None:
    given = [
        (await client.put(await turn_of(client, ready, f"{number}?"), json={"verdict": "agree"})).json()
        for number in range(3)
    ]
    await redis.flushall()

    assert await exported(client) == given
    since = given[1]["given_at"]
    later = await exported(client, since=since)
    assert later == [it for it in given if it["given_at"] >= since]
    assert given[2] in later
    assert given[0] not in later or given[0]["given_at"] == since
    assert await exported(client, since="9999-12-31T23:59:59Z") == []
    assert await exported(client, since="0001-01-01T00:00:00Z") == given


async def test_what_is_taken_back_is_gone(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    place = await turn_of(client, ready)
    await client.put(place, json={"verdict": "agree", "words": "Mrs Doe"})

    assert (await client.delete(place)).status_code == 204

    assert problem_of(await client.get(place), 404) == "not_found"
    assert problem_of(await client.delete(place), 404) == "not_found"
    assert await exported(client) == []


async def test_a_conversation_that_is_deleted_takes_its_feedback_along(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    gone, stays = await turn_of(client, ready), await turn_of(client, ready)
    for place in (gone, stays):
        await client.put(place, json={"verdict": "agree"})

    assert (await client.delete(gone.removesuffix("/turns/1/feedback"))).status_code == 204

    assert [it["conversation_id"] for it in await exported(client)] == [stays.split("/")[3]]
    assert len(await parts.store.keys_after(ready.paths.feedback, "", 10)) == 1


async def test_feedback_that_comes_while_its_conversation_is_deleted_leaves_nothing(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await turn_of(client, ready)
    lock, forget, locked = parts.slides.lock, parts.conversations.forget, list[int]()

    @asynccontextmanager
    async def behind_a_deletion(tenant: str, slide_id: str) -> AsyncIterator[None]:
        """Who gives feedback has read the conversation, and waits."""
        monkeypatch.setattr(parts.slides, "lock", lock)
        assert (await client.delete(place.removesuffix("/turns/1/feedback"))).status_code == 204
        async with lock(tenant, slide_id):
            yield

    async def noted(tenant: str, conversation_id: str) -> None:
        locked.append(await redis.exists(f"eyepiece:{{{tenant}}}:record:{ready.id}"))
        await forget(tenant, conversation_id)

    monkeypatch.setattr(parts.slides, "lock", behind_a_deletion)
    monkeypatch.setattr(parts.conversations, "forget", noted)

    assert problem_of(await client.put(place, json={"verdict": "agree"}), 404) == "not_found"

    assert locked == [1], "until the conversation is gone, nobody can judge it again"
    assert await exported(client) == []
    assert await parts.store.keys_after(ready.paths.feedback, "", 10) == []


async def test_a_slide_that_is_deleted_leaves_nothing_of_it(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    for _ in range(2):
        await client.put(await turn_of(client, ready), json={"verdict": "agree"})
    assert len(await parts.store.keys_after("index/feedback", "", 10)) == 2

    await client.delete(f"/v1/slides/{ready.id}")

    assert await exported(client) == []
    assert await parts.store.keys_after("index/feedback", "", 10) == []
    assert await parts.store.keys_after(ready.paths.folder, "", 10) == []


async def test_the_store_counts_what_is_given_and_taken_back(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    before = (await client.get("/v1/usage")).json()["stored_bytes"]
    place = await turn_of(client, ready)
    for words in ("short", "much longer than that", "mid-length"):
        await client.put(place, json={"verdict": "agree", "words": words})
        counted = (await client.get("/v1/usage")).json()["stored_bytes"]
        assert counted - before == await parts.store.stored_bytes(ready.paths.feedback)

    await client.delete(place)

    assert (await client.get("/v1/usage")).json()["stored_bytes"] == before


async def test_what_cannot_be_read_is_named_in_the_export_and_can_be_given_anew(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    place = await turn_of(client, ready)
    await client.put(place, json={"verdict": "agree"})
    (path,) = await parts.store.keys_after(ready.paths.feedback, "", 10)
    await parts.store.put(f"{ready.paths.feedback}/{path}", b'{"question": ')

    (line,) = await exported(client)
    assert (line["object"], line["slide_id"], line["turn"]) == ("feedback.damaged", ready.id, 1)
    assert problem_of(await client.get(place), 404) == "not_found"
    given = (await client.put(place, json={"verdict": "agree"})).json()
    assert given in await exported(client)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"verdict": "right"}',
        b'{"verdict": null}',
        b'{"verdict": "agree", "words": "' + b"x" * 2001 + b'"}',
        b'{"verdict": "agree", "words": "\\ud800"}',
        b'{"verdict": "agree", "patient": "x"}',
    ],
)
async def test_feedback_that_is_none_is_refused(client: httpx.AsyncClient, ready: SlideRecord, body: bytes) -> None:
    place = await turn_of(client, ready)

    refused = await client.put(place, content=body, headers={"Content-Type": "application/json"})

    assert problem_of(refused, 422) == "invalid_request"
    assert await exported(client) == []


async def test_a_turn_that_is_none_is_not_found(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    place = await turn_of(client, ready)
    body = {"verdict": "agree"}

    assert problem_of(await client.put(place.replace("/1/", "/2/"), json=body), 404) == "not_found"
    assert problem_of(await client.put(place.replace("/1/", "/0/"), json=body), 422) == "invalid_request"
    assert problem_of(await client.put(place.replace("/1/", "/x/"), json=body), 422) == "invalid_request"
    assert problem_of(await client.get(place), 404) == "not_found"


@pytest.mark.parametrize("since", ["yesterday", "2026-11-01T00:00:00", "2026-11-01", "", "0.5", "1764382320"])
async def test_a_moment_without_a_time_zone_is_refused(client: httpx.AsyncClient, since: str) -> None:
    assert problem_of(await client.get("/v1/feedback", params={"since": since}), 422) == "invalid_request"
