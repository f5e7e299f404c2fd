"""Quotas over the whole API: refused early, held exactly however many come at once, and counted without the store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from api_parts import client_of, problem_of, stored_slide, upload
from fastapi import FastAPI
from features_files import TRIDENT_ATTRIBUTES, write_hdf5
from pydantic import ValidationError
from redis.asyncio import Redis
from saq import Status

from encoders.types import SlideFacts
from server.admission.quota import Quota
from server.api.parts import Parts
from server.app import build_archive_walk, build_reconciler
from server.encoding.encode_worker import WorkerQueue
from server.errors import QuotaExceeded
from server.identity.api_keys import create_key
from server.settings import Settings
from server.upkeep import archive_walk
from server.uploads import slide_inspection

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
MIB = 2**20


@pytest.fixture(autouse=True)
def everything_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader processes: these tests are about counting."""
    monkeypatch.setattr(slide_inspection, "_facts", lambda *_: SlideFacts("aperio", 1024, 768, 0.5, 20.0))


def slide(size_bytes: int, name: str = "") -> bytes:
    return (b"II*\x00" + name.encode()).ljust(size_bytes, b"x")


async def usage(client: httpx.AsyncClient) -> tuple[int, int]:
    body = (await client.get("/v1/usage")).json()
    return body["stored_bytes"], body["encodings_today"]


async def test_usage_is_counted_and_deleting_gives_room_back(make_app: Callable[..., FastAPI]) -> None:
    async with client_of(make_app(quota_stored_bytes=10 * MIB, quota_encodings_per_day=5)) as client:
        empty = (await client.get("/v1/usage")).json()
        first = await upload(client, slide(1000))
        again = await upload(client, slide(1000))
        after = await usage(client)
        await client.delete(f"/v1/slides/{first.json()['id']}")

        assert empty == {
            "stored_bytes": 0,
            "stored_bytes_quota": 10 * MIB,
            "encodings_today": 0,
            "encodings_per_day_quota": 5,
            "slides_running": 0,
            "slides_waiting": 0,
            "slides_ahead": 0,
        }
        assert (first.status_code, again.status_code) == (202, 200)
        assert after[1] == 1
        assert 1000 <= after[0] < 3000  # what is counted anew has the record too
        assert (await usage(client))[0] < 1000


async def test_who_waits_is_told_how_many_are_ahead(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    parts: Parts = app.state.parts
    async with client_of(app, await create_key(parts.store, "b")) as client:

        async def standing() -> tuple[int, int, int]:
            body = (await client.get("/v1/usage")).json()
            return body["slides_running"], body["slides_waiting"], body["slides_ahead"]

        assert await standing() == (0, 0, 0)
        for name in ("a1", "a2", "a3"):
            await parts.jobs.enqueue(await stored_slide(parts, name, tenant="a"))
        assert await standing() == (0, 0, 1), "an upload now has its turn after one of a's"
        for name in ("b1", "b2"):
            await parts.jobs.enqueue(await stored_slide(parts, name, tenant="b"))
        assert await standing() == (0, 2, 1)
        for _ in range(2):
            job = await WorkerQueue(parts.jobs).dequeue()
            assert job is not None
            await job.update(status=Status.ACTIVE)
        assert await standing() == (1, 1, 1)
        await parts.jobs.enqueue(await stored_slide(parts, "urgent", tenant="b", priority="urgent"))
        assert await standing() == (1, 2, 1), "b had the very last turn"


async def test_no_quota_is_told_as_null(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/usage")).json()

    assert (body["stored_bytes_quota"], body["encodings_per_day_quota"]) == (None, None)


async def test_what_is_announced_beyond_the_quota_is_refused_before_its_first_byte(
    make_app: Callable[..., FastAPI],
) -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        begun.set()
        yield b""

    async with client_of(make_app(quota_stored_bytes=MIB)) as client:
        headers = FORM | {"Content-Length": str(3 * MIB)}
        answer = await client.post("/v1/slides", content=body(), headers=headers)
        absurd = await client.post("/v1/slides", content=b"--b--", headers=FORM | {"Content-Length": "9" * 5000})

    assert problem_of(answer, 403) == "quota_exceeded"
    assert not begun.is_set()
    assert absurd.status_code < 500


async def test_what_turns_out_to_be_beyond_the_quota_is_not_read_to_its_end(
    make_app: Callable[..., FastAPI], parts: Parts
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while True:
            yield bytes(MIB)

    async with client_of(make_app(quota_stored_bytes=4 * MIB)) as client:
        answer = await client.post("/v1/slides", content=endless(), headers=FORM)

        assert problem_of(answer, 403) == "quota_exceeded"
        assert await usage(client) == (0, 0)
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_uploads_at_once_do_not_all_get_the_last_of_a_quota(make_app: Callable[..., FastAPI]) -> None:
    async with client_of(make_app(quota_stored_bytes=2500)) as client:
        await usage(client)
        answers = await asyncio.gather(*(upload(client, slide(1000, str(number))) for number in range(5)))

        assert sorted(answer.status_code for answer in answers) == [202, 202, 403, 403, 403]
        assert (await usage(client))[0] == 2000
        assert len((await client.get("/v1/slides")).json()["data"]) == 2


async def test_attached_features_count_once(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    app = make_app(quota_stored_bytes=MIB)
    record = await stored_slide(app.state.parts, vendor="aperio")
    features = write_hdf5(tmp_path / "given.h5", **TRIDENT_ATTRIBUTES).read_bytes()
    path = f"/v1/slides/{record.id}/features"
    async with client_of(app) as client:
        before, _ = await usage(client)
        answers = [await client.put(path, files={"file": ("f.h5", features)}) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [202, 202]
        assert (await usage(client))[0] == before + len(features)
        too_much = await client.put(path, files={"file": ("g.h5", features + bytes(2 * MIB))})
        assert problem_of(too_much, 403) == "quota_exceeded"


async def test_encodings_of_a_day_are_limited_and_say_when_there_are_more(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(quota_encodings_per_day=2)
    async with client_of(app) as client:
        first = (await upload(client, slide(100))).json()["id"]
        promoted = await client.post(f"/v1/slides/{first}/encode", json={"priority": "urgent"})
        second = await client.post(f"/v1/slides/{first}/encode", json={"mpp": 0.7})
        refused = [
            await upload(client, slide(101)),
            await client.post(f"/v1/slides/{first}/encode", json={"mpp": 0.8}),
            await client.put(f"/v1/slides/{first}/features", files={"file": ("f.h5", b"\x89HDF\r\n\x1a\n")}),
        ]

        assert (promoted.status_code, second.status_code) == (202, 202)
        assert [problem_of(answer, 403) for answer in refused] == ["quota_exceeded"] * 3
        assert all(0 < int(answer.headers["Retry-After"]) <= 86_401 for answer in refused)
        assert (await client.get(f"/v1/slides/{first}")).json()["mpp"] == 0.7
        assert (await usage(client))[1] == 2


async def test_a_tenant_may_have_a_quota_of_its_own(make_app: Callable[..., FastAPI]) -> None:
    quotas = {"small": Quota(stored_bytes=500), "free": Quota(stored_bytes=0, encodings_per_day=0)}
    app = make_app(quota_stored_bytes=1500, quota_encodings_per_day=1, tenant_quotas=quotas)
    statuses = {}
    for tenant in ("small", "usual", "free"):
        async with client_of(app, await create_key(app.state.parts.store, tenant)) as client:
            statuses[tenant] = [(await upload(client, slide(1000, str(number)))).status_code for number in range(3)]

    assert statuses == {"small": [403, 403, 403], "usual": [202, 403, 403], "free": [202, 202, 202]}


async def test_no_request_walks_the_store_and_a_walk_corrects_the_count(
    parts: Parts, client: httpx.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(client, slide(1000))
    await redis.set("eyepiece:stored-bytes:{default}", 5)
    await stored_slide(parts, "more")
    walked = []
    walk = parts.store.stored_bytes
    monkeypatch.setattr(parts.store, "stored_bytes", lambda prefix: walked.append(prefix) or walk(prefix))

    assert (await usage(client))[0] == 5
    assert walked == []
    await build_reconciler(parts).round()
    assert walked == []
    monkeypatch.setattr(archive_walk, "_AFTER_FIRST", timedelta())
    await build_archive_walk(parts).walk_all()

    assert walked == []
    assert (await usage(client))[0] == await walk("tenants/default/slides") > 1005


async def test_a_count_that_redis_lost_is_made_from_the_store(
    client: httpx.AsyncClient, parts: Parts, redis: Redis
) -> None:
    await upload(client, slide(1000))
    await redis.flushall()
    await parts.usage.give_room_back("default", 1000)  # a counter that is not there does not begin below zero

    assert (await usage(client))[0] >= 1000


async def test_what_is_stored_while_the_store_is_counted_stays_counted(parts: Parts, redis: Redis) -> None:
    await redis.set("eyepiece:stored-bytes:{default}", 7)
    counted = await parts.usage.counted("default")
    async with parts.usage.room_for("default", 100) as room:
        room.is_used = True

    await parts.usage.correct("default", counted, 50)

    assert (await parts.usage.report("default")).stored_bytes == 150


async def test_room_that_was_not_used_is_given_back(make_app: Callable[..., FastAPI]) -> None:
    parts: Parts = make_app(quota_stored_bytes=100).state.parts
    with pytest.raises(OSError, match="broken"):
        async with parts.usage.room_for("default", 60):
            raise OSError("broken")

    async with parts.usage.room_for("default", 60) as room:
        room.is_used = True
    with pytest.raises(QuotaExceeded):
        async with parts.usage.room_for("default", 60):
            pass


def test_quotas_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYEPIECE_TENANT_QUOTAS", '{"lab-a": {"stored_bytes": 5}}')
    assert Settings().tenant_quotas == {"lab-a": Quota(stored_bytes=5)}

    monkeypatch.setenv("EYEPIECE_TENANT_QUOTAS", '{"lab-a": {"stored": 5}}')
    with pytest.raises(ValidationError):
        Settings()
