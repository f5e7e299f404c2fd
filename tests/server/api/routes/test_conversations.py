"""Conversations through the whole API: listed, looked at, forgotten."""

from typing import Any

import httpx
import pytest
from api_parts import problem_of, stored_slide

from server.api.parts import Parts
from server.slides.slide_record import SlideRecord


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


async def answered(client: httpx.AsyncClient, slide: SlideRecord, question: str, **more: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/slides/{slide.id}/questions", json={"question": question, "stream": False, **more})
    told: dict[str, Any] = answer.json()
    return told


async def test_the_conversations_about_a_slide_are_listed_page_by_page(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    other = await stored_slide(parts, "other", ready=True)
    ids = [(await answered(client, ready, f"{number}?"))["conversation_id"] for number in range(3)]
    await answered(client, other, "Elsewhere?")

    first = (await client.get("/v1/conversations", params={"slide": ready.id, "limit": 2})).json()
    query = {"slide": ready.id, "limit": 2, "cursor": first["next_cursor"]}
    second = (await client.get("/v1/conversations", params=query)).json()

    shown = first["data"] + second["data"]
    assert {it["id"]: it["title"] for it in shown} == dict(zip(ids, ["0?", "1?", "2?"], strict=True))
    assert (len(first["data"]), second["next_cursor"]) == (2, None)
    assert {it["slide_id"] for it in shown} == {ready.id}
    assert {(it["model"], it["turns"]) for it in shown} == {("demo", 1)}


async def test_they_go_with_the_slide_and_one_by_one(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    ids = [(await answered(client, ready, "Why?"))["conversation_id"] for _ in range(2)]
    await client.delete(f"/v1/conversations/{ids[0]}")

    listed = (await client.get("/v1/conversations", params={"slide": ready.id})).json()
    await client.delete(f"/v1/slides/{ready.id}")

    assert [it["id"] for it in listed["data"]] == ids[1:]
    assert problem_of(await client.get("/v1/conversations", params={"slide": ready.id}), 404) == "not_found"
    assert problem_of(await client.get(f"/v1/conversations/{ids[1]}"), 404) == "not_found"


async def test_a_slide_must_be_named_and_be_there(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    assert problem_of(await client.get("/v1/conversations"), 422) == "invalid_request"
    assert problem_of(await client.get("/v1/conversations", params={"slide": "0" * 64}), 404) == "not_found"
    assert problem_of(await client.get("/v1/conversations", params={"slide": "../x"}), 404) == "not_found"
    for wrong in ({"cursor": "x"}, {"limit": "0"}, {"limit": "101"}, {"q": "x"}):
        refused = await client.get("/v1/conversations", params={"slide": ready.id, **wrong})
        assert problem_of(refused, 422) == "invalid_request"
