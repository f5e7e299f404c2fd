"""What can be seen, downloaded and deleted of a slide through the whole API."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from api_parts import client_of, encode_job, problem_of, running_worker, stored_slide, until, upload
from fakes import FakeEncode
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis

from server.api.parts import Parts
from server.machine.redis_server import free_loopback_port
from server.slides.catalogue import SlideRecord
from server.slides.progress import Event

UNKNOWN = "0" * 64


async def keys_of(redis: Redis, slide_id: str) -> list[bytes]:
    return [key for key in await redis.keys("*") if slide_id.encode() in key]


async def test_slides_are_listed_page_by_page(client: httpx.AsyncClient, parts: Parts) -> None:
    names = [f"slide {index}" for index in range(7)]
    records = {name: await stored_slide(parts, name) for name in names}
    for name in ("slide 1", "slide 2", "slide 3"):  # uploads under way: folders without a record
        await parts.store.delete(records[name].paths.record)

    listed: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await client.get("/v1/slides", params={"limit": 2, "cursor": cursor})).json()
        assert set(page) == {"object", "data", "next_cursor"}
        listed += [slide["id"] for slide in page["data"]]
        cursor = page["next_cursor"]

    assert listed == sorted(records[name].id for name in names if name not in ("slide 1", "slide 2", "slide 3"))
    assert (await client.get("/v1/slides")).json()["next_cursor"] is None


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", "1e3", "9" * 5000])
async def test_a_page_of_another_size_is_refused(client: httpx.AsyncClient, limit: str) -> None:
    assert problem_of(await client.get("/v1/slides", params={"limit": limit}), 422) == "invalid_request"


async def test_a_tenant_without_slides_has_an_empty_list(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/slides")).json() == {"object": "list", "data": [], "next_cursor": None}


@pytest.mark.parametrize(
    "slide_id", [UNKNOWN, "0" * 63, "A" * 64, "..", "%2e%2e", "%00", "x" * 5000, "ä", UNKNOWN + "%0A"]
)
async def test_an_unknown_slide_is_not_found(client: httpx.AsyncClient, slide_id: str) -> None:
    assert problem_of(await client.get(f"/v1/slides/{slide_id}/features"), 404) == "not_found"


async def test_deleting_leaves_nothing_anywhere(
    client: httpx.AsyncClient, parts: Parts, redis: Redis, sample_slide: bytes, tmp_path: Path
) -> None:
    slide = (await upload(client, sample_slide)).json()
    encode = FakeEncode(slide["encoder_id"])
    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        await client.get(f"/v1/slides/{slide['id']}/events")
    asked = await client.post(f"/v1/slides/{slide['id']}/questions", json={"question": "Why?", "stream": False})

    deleted = await client.delete(f"/v1/slides/{slide['id']}")

    assert (asked.status_code, deleted.status_code, deleted.content) == (200, 204, b"")
    assert problem_of(await client.get(f"/v1/slides/{slide['id']}"), 404) == "not_found"
    assert await keys_of(redis, slide["id"]) == []
    assert [key for key in await redis.keys("*") if b"conversation" in key] == []
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert problem_of(await client.delete(f"/v1/slides/{slide['id']}"), 404) == "not_found"
    assert (await upload(client, sample_slide)).status_code == 202


async def test_deleting_stops_a_running_encode(
    client: httpx.AsyncClient, parts: Parts, redis: Redis, sample_slide: bytes
) -> None:
    slide = (await upload(client, sample_slide)).json()
    encode = FakeEncode(slide["encoder_id"], hold=True)

    async def forgotten() -> bool:
        return await keys_of(redis, slide["id"]) == []

    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        await asyncio.to_thread(encode.started.wait, 30)
        assert (await client.delete(f"/v1/slides/{slide['id']}")).status_code == 204
        await until(encode.saw_cancel.is_set)
        await until(forgotten)

    assert await parts.slides.ids("default") == []


async def test_without_redis_nothing_is_deleted_by_halves(
    make_app: Callable[..., FastAPI], parts: Parts, client: httpx.AsyncClient
) -> None:
    record = await stored_slide(parts, ready=True)
    away = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))

    async with client_of(away) as other:
        assert problem_of(await other.delete(f"/v1/slides/{record.id}"), 503) == "queue_unavailable"

    assert (await client.get(f"/v1/slides/{record.id}")).json()["status"] == "ready"


async def test_a_thumbnail_is_a_png_within_its_size(client: httpx.AsyncClient, sample_slide: bytes) -> None:
    slide = (await upload(client, sample_slide)).json()

    answer = await client.get(f"/v1/slides/{slide['id']}/thumbnail", params={"max_px": 64})

    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["Content-Type"] == "image/png"
    assert "private" in answer.headers["Cache-Control"]
    assert problem_of(await client.get(f"/v1/slides/{slide['id']}/thumbnail?max_px=9999"), 422) == "invalid_request"


async def test_a_thumbnail_without_its_source_is_not_found(client: httpx.AsyncClient, parts: Parts) -> None:
    record: SlideRecord = await stored_slide(parts)
    await parts.store.delete(record.paths.source)

    assert problem_of(await client.get(f"/v1/slides/{record.id}/thumbnail"), 404) == "not_found"


async def test_features_before_they_are_there_are_not_found(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)

    assert problem_of(await client.get(f"/v1/slides/{record.id}/features"), 404) == "not_found"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "DELETE", "TRACE"])
async def test_another_method_is_told_which_there_are(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/v1/slides")

    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) <= {"GET", "POST"}


async def test_no_more_event_streams_at_once_than_there_are_slots(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(max_concurrent_followers=1)
    parts: Parts = app.state.parts
    waiting, done = await stored_slide(parts, "waiting"), await stored_slide(parts, "done", ready=True)

    async with client_of(app) as client:
        following = asyncio.create_task(client.get(f"/v1/slides/{waiting.id}/events"))
        await until(lambda: parts.follower_slots._free == 0)
        refused = await client.get(f"/v1/slides/{done.id}/events")
        await parts.progress.append("default", waiting.id, Event("ready", {}))
        await following
        again = await client.get(f"/v1/slides/{done.id}/events")

    assert problem_of(refused, 429) == "overloaded"
    assert again.status_code == 200
