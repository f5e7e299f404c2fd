"""What can be seen, downloaded and deleted of a slide through the whole API."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from api_parts import client_of, encode_job, problem_of, running_worker, stored_slide, until, upload
from fakes import FakeEncode
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from saq import Status

from server.api.parts import Parts
from server.app import build_reconciler
from server.encoding.encode_worker import WorkerQueue
from server.flow import list_slides
from server.machine.redis_server import free_loopback_port
from server.slides.progress import Event
from server.slides.slide_index import entry_of
from server.slides.slide_record import SlideError, SlideRecord

UNKNOWN = "0" * 64


async def keys_of(redis: Redis, slide_id: str) -> list[bytes]:
    return [key for key in await redis.keys("*") if slide_id.encode() in key]


async def uploaded_one_after_the_other(parts: Parts, names: list[str], **facts: object) -> list[SlideRecord]:
    """A second apart, the first one first."""
    began = datetime(2026, 5, 1, 12, tzinfo=UTC)
    return [
        await stored_slide(parts, name, created_at=began + timedelta(seconds=number), **facts)
        for number, name in enumerate(names)
    ]


async def listed(client: httpx.AsyncClient, **options: object) -> list[str]:
    """The file names of all pages."""
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await client.get("/v1/slides", params={**options, "cursor": cursor})  # type: ignore[dict-item]
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"object", "data", "next_cursor", "complete"}
        assert page["complete"]
        assert len(page["data"]) <= int(str(options.get("limit", 20)))
        names += [slide["filename"].removesuffix(".svs") for slide in page["data"]]
        cursor = page["next_cursor"]
    return names


async def test_slides_are_listed_newest_first_page_by_page(client: httpx.AsyncClient, parts: Parts) -> None:
    names = [f"slide {index}" for index in range(7)]
    records = await uploaded_one_after_the_other(parts, names)
    for record in records[1:4]:  # uploads under way: folders without a record
        await parts.store.delete(record.paths.record)

    assert await listed(client, limit=2) == ["slide 6", "slide 5", "slide 4", "slide 0"]
    assert (await client.get("/v1/slides")).json()["next_cursor"] is None
    assert (await client.get("/v1/slides?limit=4")).json()["next_cursor"] is not None


async def test_slides_of_the_same_moment_are_all_listed(client: httpx.AsyncClient, parts: Parts) -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    for name in "abcde":
        await stored_slide(parts, name, created_at=moment)

    assert await listed(client, limit=1) == list("abcde")


async def test_slides_of_one_status_are_listed(client: httpx.AsyncClient, parts: Parts) -> None:
    error = SlideError(code="no_tissue", detail="None.")
    ready = await uploaded_one_after_the_other(parts, ["ready", "ready too"], ready=True)
    (failed,) = await uploaded_one_after_the_other(parts, ["failed"])
    (running,) = await uploaded_one_after_the_other(parts, ["running"])
    await uploaded_one_after_the_other(parts, ["queued", "queued too"])
    await parts.slides.update(failed, lambda stored: stored.model_copy(update={"error": error}))
    await parts.jobs.enqueue(running)
    job = await WorkerQueue(parts.jobs).dequeue()
    assert job is not None
    await job.update(status=Status.ACTIVE)

    for _ in range(2):
        assert await listed(client, status="ready", limit=1) == ["ready too", "ready"]
        assert await listed(client, status="failed", limit=1) == ["failed"]
        assert await listed(client, status="encoding", limit=1) == ["running"]
        assert await listed(client, status="queued", limit=1) == ["queued too", "queued"]
        await build_reconciler(parts).round()
    assert [it.id for it in ready] == [it.id for it in ready if not await is_pending(parts, it)]
    assert problem_of(await client.get("/v1/slides?status=lost"), 422) == "invalid_request"


async def is_pending(parts: Parts, record: SlideRecord) -> bool:
    return entry_of(record) in await parts.slides.index.entries("pending", record.tenant, "", 100)


async def test_a_failed_slide_that_is_encoded_again_is_listed_where_it_is(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    (record,) = await uploaded_one_after_the_other(parts, ["again"])
    error = SlideError(code="missing_mpp", detail="Give mpp.")
    await parts.slides.update(record, lambda stored: stored.model_copy(update={"error": error}))
    await build_reconciler(parts).round()
    assert (await listed(client, status="failed"), await is_pending(parts, record)) == (["again"], False)

    await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.5})

    assert (await listed(client, status="failed"), await listed(client, status="queued")) == ([], ["again"])


@pytest.mark.parametrize("knows_names", [True, False])
async def test_slides_are_found_by_a_part_of_their_name(
    client: httpx.AsyncClient, parts: Parts, redis: Redis, knows_names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_slides, "_NAMES_AT_ONCE", 3)
    monkeypatch.setattr(list_slides, "_MOST_NAMES", 5)
    monkeypatch.setattr(list_slides, "_MOST_LOOKS", 4)
    names = ["S26-100 A", "S26-200", "s26-100 b", *(f"other {number}" for number in range(9)), "MU\u0308LLER S26-100"]
    await uploaded_one_after_the_other(parts, names)
    if not knows_names:
        await redis.flushall()

    for _ in range(2):  # the second time Redis knows what the first has read
        assert await listed(client, name="S26-100") == ["MU\u0308LLER S26-100", "s26-100 b", "S26-100 A"]
        assert await listed(client, name="s26-100", limit=1) == ["MU\u0308LLER S26-100", "s26-100 b", "S26-100 A"]
        assert await listed(client, name="müller", status="queued") == ["MU\u0308LLER S26-100"]
        assert await listed(client, name="nobody") == []


async def test_names_are_forgotten_with_their_slides(client: httpx.AsyncClient, parts: Parts, redis: Redis) -> None:
    (record,) = await uploaded_one_after_the_other(parts, ["Doe^Jane"])
    assert await listed(client, name="jane") == ["Doe^Jane"]

    await client.delete(f"/v1/slides/{record.id}")

    assert await listed(client, name="jane") == []
    assert await redis.exists("eyepiece:{default}:slide-names") == 0


@pytest.mark.parametrize("cursor", ["x", UNKNOWN, "../" * 20, "9" * 13 + "-" + "A" * 64])
async def test_a_cursor_of_another_release_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    assert problem_of(await client.get("/v1/slides", params={"cursor": cursor}), 422) == "invalid_request"


async def test_slides_are_found_by_the_beginning_of_their_id(client: httpx.AsyncClient, parts: Parts) -> None:
    one, two, _ = [await stored_slide(parts, name) for name in ("aaa1", "aaa2", "bbbb")]
    await stored_slide(parts, "aaa1", tenant="b")
    orphan = await stored_slide(parts, "aaa0")
    await parts.store.delete(orphan.paths.record)

    async def ids(beginning: str, **more: str) -> list[str]:
        page = (await client.get("/v1/slides", params={"id": beginning, **more})).json()
        assert (page["next_cursor"], page["complete"]) == (None, True)
        return [slide["id"] for slide in page["data"]]

    assert await ids("616161") == [one.id, two.id]
    assert await ids("61616132") == [two.id]
    assert await ids(one.id) == [one.id]
    assert await ids("616161", limit="2") == [one.id, two.id]
    assert await ids("00000000") == await ids("ffffff") == []


@pytest.mark.parametrize(
    "query",
    [
        {"id": ""},
        {"id": "61616"},
        {"id": "616161", "limit": "1"},
        {"id": "61616G"},
        {"id": "616161/"},
        {"id": "../slides"},
        {"id": "616161", "name": "aaa"},
        {"id": "616161", "status": "ready"},
        {"id": "616161", "cursor": f"1764382320123-{'5e' * 32}"},
    ],
)
async def test_what_is_no_beginning_of_an_id_is_refused(
    client: httpx.AsyncClient, parts: Parts, query: dict[str, str]
) -> None:
    for name in ("aaa1", "aaa2"):
        await stored_slide(parts, name)

    assert problem_of(await client.get("/v1/slides", params=query), 422) == "invalid_request"


async def test_a_slide_that_was_deleted_and_uploaded_again_is_listed_once(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    first, _ = await uploaded_one_after_the_other(parts, ["again", "other"])
    await parts.store.delete(first.paths.record)  # a deletion that was killed
    later = first.created_at + timedelta(minutes=1)
    await stored_slide(parts, "again", created_at=later)

    assert await listed(client) == ["again", "other"]
    for _ in range(2):
        await build_reconciler(parts).round()
    assert len(await parts.slides.index.entries("all", "default", "", 9)) == 2
    assert await listed(client) == ["again", "other"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", "1e3", "9" * 5000])
async def test_a_page_of_another_size_is_refused(client: httpx.AsyncClient, limit: str) -> None:
    assert problem_of(await client.get("/v1/slides", params={"limit": limit}), 422) == "invalid_request"


async def test_a_tenant_without_slides_has_an_empty_list(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/slides")).json() == {
        "object": "list",
        "data": [],
        "next_cursor": None,
        "complete": True,
    }


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

    async def job_over() -> bool:
        return not await parts.jobs.slides_with_job()

    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        await client.get(f"/v1/slides/{slide['id']}/events")
        await until(job_over)
    asked = await client.post(f"/v1/slides/{slide['id']}/questions", json={"question": "Why?", "stream": False})

    deleted = await client.delete(f"/v1/slides/{slide['id']}")

    assert (asked.status_code, deleted.status_code, deleted.content) == (200, 204, b"")
    assert problem_of(await client.get(f"/v1/slides/{slide['id']}"), 404) == "not_found"
    assert await keys_of(redis, slide["id"]) == []
    assert [key for key in await redis.keys("*") if b"conversation" in key] == []
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert left == [tmp_path / "store/index/state/default.json"]
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

    assert await parts.store.folders("tenants/default/slides") == []


async def test_without_redis_nothing_is_deleted_by_halves(
    make_app: Callable[..., FastAPI], parts: Parts, client: httpx.AsyncClient
) -> None:
    record = await stored_slide(parts, ready=True)
    away = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))

    async with client_of(away) as other:
        assert problem_of(await other.delete(f"/v1/slides/{record.id}"), 503) == "queue_unavailable"

    assert (await client.get(f"/v1/slides/{record.id}")).json()["status"] == "ready"


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
