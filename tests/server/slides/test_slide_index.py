"""The index under kills: between any two writes of an upload, a deletion and an encode that is asked for again."""

from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from api_parts import stored_slide, upload
from killed_writes import killed_before_write
from redis.asyncio import Redis

from encoders.types import SlideFacts
from server.api.parts import Parts
from server.app import build_reconciler
from server.slides.slide_index import ENTRY_PATTERN, entry_at, entry_of
from server.slides.slide_record import SlideError, SlideRecord
from server.uploads import slide_inspection

SLIDE = b"II*\x00".ljust(100, b"x")


@pytest.fixture(autouse=True)
def everything_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader processes: these tests are about what is written."""
    monkeypatch.setattr(slide_inspection, "_facts", lambda *_: SlideFacts("aperio", 1024, 768, 0.5, 20.0))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1),
        datetime(1969, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-12))),
        datetime(2026, 5, 1, 12, 0, 0, 123000, tzinfo=UTC),
    ],
)
def test_every_moment_has_a_place(moment: datetime) -> None:
    assert ENTRY_PATTERN.fullmatch(entry_at(moment, "a" * 64))


def test_later_is_before_earlier() -> None:
    moment = datetime(2026, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)

    assert entry_at(moment + timedelta(milliseconds=1), "f" * 64) < entry_at(moment, "0" * 64)


async def settled(parts: Parts, redis: Redis) -> None:
    """Three rounds of a new process' reconciler, after the locks of the dead one have expired."""
    for key in await redis.keys("*:record:*"):
        await redis.delete(key)
    reconciler = build_reconciler(parts)
    for _ in range(3):
        await reconciler.round()


async def assert_index_tells_the_truth(parts: Parts, client: httpx.AsyncClient) -> list[SlideRecord]:
    """What is stored is listed once, and pending when it is; no folder is without a record."""
    folders = await parts.store.folders("tenants/default/slides")
    found = [await parts.slides.find("default", slide_id) for slide_id in folders]
    records = [record for record in found if record is not None]
    assert len(records) == len(found), "nothing is left without a record"
    index = parts.slides.index
    assert sorted(await index.entries("all", "default", "", 99)) == sorted(map(entry_of, records))
    failed = {entry_of(record) for record in records if record.error is not None}
    pending = [
        entry_of(record) for record in records if record.error is None and not await parts.embeddings.exists(record)
    ]
    assert sorted(await index.entries("pending", "default", "", 99)) == sorted(pending)
    assert failed <= set(await index.entries("failed", "default", "", 99)) <= failed.union(pending)
    assert all([await parts.jobs.find(record) for record in records if entry_of(record) in pending])
    shown = (await client.get("/v1/slides")).json()["data"]
    assert sorted(slide["id"] for slide in shown) == sorted(folders)
    return records


async def test_an_upload_may_be_killed_before_any_write(client: httpx.AsyncClient, parts: Parts, redis: Redis) -> None:
    for number in range(20):
        content = SLIDE + str(number).encode()
        with killed_before_write(parts.store, number) as was_killed:
            await upload(client, content)
        await settled(parts, redis)
        records = await assert_index_tells_the_truth(parts, client)
        if not was_killed():
            assert number >= 4, "the state, the shelves, the source and the record are written"
            assert len(records) >= 1
            return
    raise AssertionError("an upload has no end")


async def test_a_deletion_may_be_killed_before_any_write(client: httpx.AsyncClient, parts: Parts, redis: Redis) -> None:
    for number in range(20):
        record = await stored_slide(parts, str(number), ready=True)
        await build_reconciler(parts).round()
        with killed_before_write(parts.store, number) as was_killed:
            await client.delete(f"/v1/slides/{record.id}")
        await settled(parts, redis)
        records = await assert_index_tells_the_truth(parts, client)
        assert [it.id for it in records] in ([], [record.id])
        for it in records:
            assert number < 2, "without its record it does not exist"
            await client.delete(f"/v1/slides/{it.id}")
        if not was_killed():
            return
    raise AssertionError("a deletion has no end")


async def test_a_wish_to_encode_again_may_be_killed_before_any_write(
    client: httpx.AsyncClient, parts: Parts, redis: Redis
) -> None:
    error = SlideError(code="missing_mpp", detail="Give mpp.")
    for number in range(20):
        record = await stored_slide(parts, str(number))
        await parts.slides.update(record, lambda stored: stored.model_copy(update={"error": error}))
        await build_reconciler(parts).round()
        with killed_before_write(parts.store, number) as was_killed:
            await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.5})
        await settled(parts, redis)
        await assert_index_tells_the_truth(parts, client)
        if not was_killed():
            return
    raise AssertionError("a wish has no end")


async def test_a_damaged_embedding_is_made_again_whenever_its_finder_is_killed(
    client: httpx.AsyncClient, parts: Parts, redis: Redis
) -> None:
    for number in range(20):
        record = await stored_slide(parts, str(number), ready=True)
        await build_reconciler(parts).round()
        await parts.store.put(record.paths.embedding(record.encoder_id), b"damaged")
        with killed_before_write(parts.store, number) as was_killed:
            await client.post(f"/v1/slides/{record.id}/questions", json={"question": "Why?", "stream": False})
        await redis.flushall()
        await settled(parts, redis)
        await assert_index_tells_the_truth(parts, client)
        if not was_killed():
            return
    raise AssertionError("a look has no end")
