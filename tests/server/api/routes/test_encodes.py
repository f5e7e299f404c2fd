"""From upload to ready: encode, events and failures through the whole API, with a real worker and a fake encode."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from api_parts import client_of, encode_job, events_of, problem_of, running_worker, stored_slide, upload
from fakes import FakeEncode, sample_embedding
from fastapi import FastAPI
from pydantic import SecretStr

from encoders.embedding_file import to_bytes
from encoders.errors import NoTissue
from encoders.tile_budget import TileBudget
from server.api.parts import Parts
from server.machine.redis_server import free_loopback_port
from server.slides.progress import Event
from server.slides.slide_record import SlideError


async def test_a_slide_goes_from_upload_to_ready(client: httpx.AsyncClient, parts: Parts, sample_slide: bytes) -> None:
    slide = (await upload(client, sample_slide)).json()
    encode = FakeEncode(slide["encoder_id"], hold=True)
    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        await asyncio.to_thread(encode.started.wait, 30)
        assert (await client.get(f"/v1/slides/{slide['id']}")).json()["status"] == "encoding"
        encode.release.set()
        events = events_of(await client.get(f"/v1/slides/{slide['id']}/events"))

    assert [name for name, _ in events] == ["progress", "progress", "progress", "progress", "ready"]
    assert events[2][1] == {"stage": "encode_tiles", "done": 7, "total": 7}
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


async def test_a_tile_budget_is_another_encoder_until_all_tiles_are_asked_for(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    record = await stored_slide(parts, ready=True)
    url = f"/v1/slides/{record.id}/encode"

    few = (await client.post(url, json={"tile_budget": {"tiles": 100, "choice": "random", "seed": 1}})).json()
    urgent = (await client.post(url, json={"priority": "urgent"})).json()
    back = (await client.post(url, json={"tile_budget": "all"})).json()

    assert (few["status"], few["warnings"][0]["code"]) == ("queued", "tile_budget")
    assert few["encoder_id"] == urgent["encoder_id"] != record.encoder_id
    assert (back["status"], back["warnings"], back["encoder_id"]) == ("ready", [], record.encoder_id)


async def test_a_worker_is_given_the_slides_tile_budget(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    slide = (await upload(client, sample_slide)).json()
    asked = await client.post(f"/v1/slides/{slide['id']}/encode", json={"tile_budget": {"tiles": 5}})
    encode = FakeEncode(asked.json()["encoder_id"])
    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        events = events_of(await client.get(f"/v1/slides/{slide['id']}/events"))

    assert events[-1][0] == "ready"
    assert [it.budget for it in encode.slides] == [TileBudget(5)]


@pytest.mark.parametrize("attached", ["0" * 64, None])
async def test_a_tile_budget_that_no_pixels_are_read_for_is_refused(
    client: httpx.AsyncClient, parts: Parts, attached: str | None
) -> None:
    changes = {"vendor": "features"} if attached is None else {"features_sha256": attached}
    record = await stored_slide(parts, **changes)

    refused = await client.post(f"/v1/slides/{record.id}/encode", json={"tile_budget": {"tiles": 5}})

    assert problem_of(refused, 422) == "invalid_request"
    assert "tile_budget" in refused.json()["detail"]


async def test_another_resolution_takes_the_old_job_back(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)
    await parts.jobs.enqueue(record)

    await parts.store.put(f"{record.paths.parts(record.encoder_id)}/000000000-1.safetensors", b"part")

    await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.25})

    assert await parts.jobs.find(record) is None
    assert await parts.store.folders(record.paths.all_parts) == []
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
        b'{"tile_budget": {"tiles": 0}}',
        b'{"tile_budget": {"tiles": 5, "choice": "best"}}',
        b'{"tile_budget": "some"}',
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
        await parts.progress.append(
            "default", record.id, Event("progress", {"stage": "tile", "done": done, "total": 3})
        )
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


async def test_a_ready_slide_says_how_many_tiles_it_has(client: httpx.AsyncClient, parts: Parts) -> None:
    """Before the worker has written it down, and when a µm/px is chosen again that the slide was encoded with."""
    record = await stored_slide(parts, ready=True)
    tile_count = sample_embedding(record.id, record.encoder_id).tile_count

    shown = (await client.get(f"/v1/slides/{record.id}")).json()

    assert (shown["status"], shown["tile_count"]) == ("ready", tile_count)
    assert [slide["tile_count"] for slide in (await client.get("/v1/slides")).json()["data"]] == [tile_count]
    other = await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.25})
    assert other.json()["tile_count"] is None
    changed = await parts.slides.require("default", record.id)
    again = sample_embedding(record.id, changed.encoder_id)
    await parts.store.put(record.paths.embedding(changed.encoder_id), to_bytes(again))
    back = await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.25})
    assert (back.json()["status"], back.json()["tile_count"]) == ("ready", tile_count)
