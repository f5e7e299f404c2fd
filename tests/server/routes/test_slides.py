"""/v1/slides through the whole API: real Redis, real store, real reader process, a fake encode where one is needed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis

from encoders.errors import NoTissue
from server.encode_job import EncodeJob
from server.metrics import WorkerMetrics
from server.parts import Parts
from server.progress import Event
from server.redis_server import free_loopback_port
from server.slides import SlideError, SlideRecord
from tests.api_parts import client_of, running_worker, stored_slide, until
from tests.fakes import FakeEncode

UNKNOWN = "0" * 64
SLIDE_FIELDS = {
    "id",
    "object",
    "status",
    "filename",
    "size_bytes",
    "vendor",
    "width",
    "height",
    "mpp",
    "objective_power",
    "tile_count",
    "encoder_id",
    "error",
    "created_at",
}


async def upload(client: httpx.AsyncClient, content: bytes, name: str = "Doe^Jane.svs") -> httpx.Response:
    return await client.post("/v1/slides", files={"file": (name, content)})


def encode_job(parts: Parts, encode: FakeEncode) -> EncodeJob:
    return EncodeJob(
        settings=parts.settings,
        store=parts.store,
        slides=parts.slides,
        embeddings=parts.embeddings,
        progress=parts.progress,
        metrics=WorkerMetrics(CollectorRegistry()),
        encode=encode,
    )


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in response.text.split("\n\n") if block and not block.startswith(":")]
    fields = [dict(line.split(": ", 1) for line in block) for block in blocks]
    return [(block["event"], json.loads(block["data"])) for block in fields]


def problem_of(response: httpx.Response, status: int) -> str:
    """The code of an error, which has the shape of RFC 9457."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "code", "detail"}
    assert body["status"] == status
    return str(body["code"])


async def keys_of(redis: Redis, slide_id: str) -> list[bytes]:
    return [key for key in await redis.keys("*") if slide_id.encode() in key]


async def test_an_upload_is_accepted_and_queued(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    answer = await upload(client, sample_slide)

    slide = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/slides/{slide['id']}"
    assert answer.headers["Retry-After"]
    assert answer.headers["X-Request-Id"]
    assert set(slide) == SLIDE_FIELDS
    assert (slide["status"], slide["object"], slide["filename"]) == ("queued", "slide", "Doe^Jane.svs")
    assert (slide["width"], slide["height"], slide["mpp"], slide["vendor"]) == (1024, 768, 0.5, "aperio")
    assert slide["size_bytes"] == len(sample_slide)
    assert slide["created_at"].endswith("Z")
    assert (await parts.jobs.depth("routine")).queued == 1
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_the_same_content_again_is_the_same_slide(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    first = await upload(client, sample_slide)
    second = await upload(client, sample_slide, "other name.svs")

    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == first.json()
    assert (await parts.jobs.depth("routine")).queued == 1


async def test_the_same_content_at_once_is_one_slide_and_one_job(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    answers = await asyncio.gather(*(upload(client, sample_slide) for _ in range(3)))

    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.text for answer in answers}) == 1
    assert (await parts.jobs.depth("routine")).queued == 1
    assert list(parts.store.staging_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"", 415, "unsupported_format"), (b"not a slide", 415, "unsupported_format"), (bytes(100_000), 415, None)],
)
async def test_what_is_not_a_slide_is_refused(
    client: httpx.AsyncClient, parts: Parts, content: bytes, status: int, code: str | None
) -> None:
    refused = problem_of(await upload(client, content), status)

    assert code in (None, refused)
    assert await parts.slides.ids("default") == []
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_a_slide_beyond_the_limit_is_refused(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    async with client_of(make_app(max_upload_bytes=1000)) as client:
        assert problem_of(await upload(client, sample_slide), 413) == "slide_too_large"


async def test_a_full_disk_is_told(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    async with client_of(make_app(disk_reserve_bytes=2**60)) as client:
        assert problem_of(await upload(client, sample_slide), 507) == "storage_full"


async def test_a_body_that_is_no_form_is_refused(client: httpx.AsyncClient) -> None:
    assert problem_of(await client.post("/v1/slides", json={"file": "x"}), 422) == "invalid_request"
    assert problem_of(await client.post("/v1/slides"), 422) == "invalid_request"


async def test_an_upload_may_be_larger_than_any_json(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    async with client_of(make_app(max_body_bytes=100)) as client:
        assert (await upload(client, sample_slide)).status_code == 202


async def test_too_many_uploads_at_once_are_refused(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    app = make_app(max_concurrent_uploads=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield b""

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with client_of(app) as client:
        first = asyncio.create_task(client.post("/v1/slides", content=slowly(), headers=headers))
        await begun.wait()
        refused = await upload(client, sample_slide)
        go_on.set()
        await first

        assert problem_of(refused, 429) == "overloaded"
        assert refused.headers["Retry-After"]
        assert (await upload(client, sample_slide)).status_code == 202


async def test_without_redis_an_upload_is_refused_and_nothing_is_kept(
    make_app: Callable[..., FastAPI], sample_slide: bytes
) -> None:
    app = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))
    async with client_of(app) as client:
        refused = await upload(client, sample_slide)

    assert problem_of(refused, 503) == "queue_unavailable"
    assert refused.headers["Retry-After"]
    assert list(app.state.parts.store.staging_dir.iterdir()) == []


async def test_a_slide_goes_from_upload_to_ready(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    slide = (await upload(client, sample_slide)).json()
    encode = FakeEncode(slide["encoder_id"], hold=True)
    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        await asyncio.to_thread(encode.started.wait, 30)
        assert (await client.get(f"/v1/slides/{slide['id']}")).json()["status"] == "encoding"
        encode.release.set()
        events = events_of(await client.get(f"/v1/slides/{slide['id']}/events"))

    assert [name for name, _ in events] == ["progress", "progress", "progress", "ready"]
    assert events[1][1] == {"stage": "encode_tiles", "done": 7, "total": 7}
    ready = (await client.get(f"/v1/slides/{slide['id']}")).json()
    assert (ready["status"], ready["tile_count"], ready["error"]) == ("ready", 7, None)
    features = await client.get(f"/v1/slides/{slide['id']}/features")
    assert (features.content, features.headers["Content-Type"]) == (b"features", "application/x-hdf5")


async def test_a_slide_that_cannot_be_encoded_says_why(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    slide = (await upload(client, sample_slide)).json()
    encode = FakeEncode(slide["encoder_id"], error=NoTissue("There is no tissue."))
    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        events = events_of(await client.get(f"/v1/slides/{slide['id']}/events"))

    assert events[-1] == ("failed", {"code": "no_tissue", "detail": "There is no tissue."})
    failed = (await client.get(f"/v1/slides/{slide['id']}")).json()
    assert (failed["status"], failed["error"]) == ("failed", events[-1][1])


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


@pytest.mark.parametrize("slide_id", [UNKNOWN, "0" * 63, "A" * 64, "..", "%2e%2e", "%00", "x" * 5000, "ä", UNKNOWN + "%0A"])
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


async def test_a_failed_slide_is_encoded_again_with_a_resolution(client: httpx.AsyncClient, parts: Parts) -> None:
    failed = await stored_slide(parts, error=SlideError(code="missing_mpp", detail="Say it."), tile_count=3)
    await parts.progress.append("default", failed.id, Event("failed", {"code": "missing_mpp", "detail": "Say it."}))

    answer = await client.post(f"/v1/slides/{failed.id}/encode", json={"mpp": 0.25, "priority": "urgent"})

    slide = answer.json()
    assert (answer.status_code, slide["status"], slide["mpp"]) == (202, "queued", 0.25)
    assert (slide["error"], slide["tile_count"]) == (None, None)
    assert slide["encoder_id"] != failed.encoder_id
    assert (await parts.jobs.depth("urgent")).queued == 1
    assert await parts.progress.last("default", failed.id) is None


async def test_another_resolution_takes_the_old_job_back(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)
    await parts.jobs.enqueue(record)

    await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.25})

    assert await parts.jobs.find(record) is None
    assert (await parts.jobs.depth("routine")).queued == 1


async def test_a_ready_slide_is_not_encoded_again(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts, ready=True)

    answer = await client.post(f"/v1/slides/{record.id}/encode", json={"encoder": "demo"})

    assert answer.json()["status"] == "ready"
    assert (await parts.jobs.depth("routine")).queued == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"mpp": NaN}',
        b'{"mpp": Infinity}',
        b'{"mpp": 0}',
        b'{"mpp": -0.5}',
        b'{"mpp": 1e400}',
        b'{"mpp": ' + b"9" * 5000 + b"}",
        b'{"mpp": "0.5 microns"}',
        b'{"encoder": "other"}',
        b'{"priority": "now"}',
        b'{"unknown": 1}',
        b'{"\\ud800": 1}',
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
async def test_a_wish_that_cannot_be_granted_is_refused(client: httpx.AsyncClient, parts: Parts, body: bytes) -> None:
    record = await stored_slide(parts)

    headers = {"Content-Type": "application/json"}
    refused = await client.post(f"/v1/slides/{record.id}/encode", content=body, headers=headers)

    assert problem_of(refused, 422) == "invalid_request"
    assert await parts.jobs.find(record) is None


async def test_a_full_queue_is_told(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(max_queued_jobs=1)
    records = [await stored_slide(app.state.parts, name) for name in ("a", "b")]

    async with client_of(app) as client:
        answers = [await client.post(f"/v1/slides/{record.id}/encode", json={}) for record in records]

    assert answers[0].status_code == 202
    assert problem_of(answers[1], 429) == "overloaded"
    assert int(answers[1].headers["Retry-After"]) > 0


async def test_events_resume_behind_the_last_one_seen(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)
    for done in (1, 2, 3):
        await parts.progress.append("default", record.id, Event("progress", {"stage": "tile", "done": done, "total": 3}))
    await parts.progress.append("default", record.id, Event("ready", {}))
    url = f"/v1/slides/{record.id}/events"
    whole = await client.get(url)
    ids = [line[4:] for line in whole.text.split("\n") if line.startswith("id: ")]

    rest = await client.get(url, headers={"Last-Event-ID": ids[1]})
    wild = await client.get(url, headers={"Last-Event-ID": "'; DROP"})

    assert whole.headers["Content-Type"].startswith("text/event-stream")
    assert events_of(rest) == events_of(whole)[2:]
    assert events_of(wild) == events_of(whole)


@pytest.mark.parametrize("ready", [True, False])
async def test_events_that_redis_lost_still_end(client: httpx.AsyncClient, parts: Parts, ready: bool) -> None:
    error = None if ready else SlideError(code="no_tissue", detail="None.")
    record = await stored_slide(parts, ready=ready, error=error)

    events = events_of(await client.get(f"/v1/slides/{record.id}/events"))

    assert events == [("ready", {})] if ready else [("failed", {"code": "no_tissue", "detail": "None."})]


async def test_events_without_redis_end_with_an_error(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))
    record = await stored_slide(app.state.parts)

    async with client_of(app) as client:
        events = events_of(await client.get(f"/v1/slides/{record.id}/events"))

    assert [(name, data["code"]) for name, data in events] == [("error", "queue_unavailable")]


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


async def test_a_damaged_record_is_our_fault(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)
    await parts.store.put(record.paths.record, b'{"filename": "Doe^Jane"}')

    answer = await client.get(f"/v1/slides/{record.id}")

    assert problem_of(answer, 500) == "internal_error"
    assert "Doe" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "DELETE", "TRACE"])
async def test_another_method_is_told_which_there_are(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/v1/slides")

    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) <= {"GET", "POST"}
