"""All slides gone through: an older release's archive, another model's, one that something was lost of."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from api_parts import stored_slide
from fastapi import FastAPI
from killed_writes import killed_before_write
from redis.asyncio import Redis

from server.api.parts import Parts
from server.app import build_archive_walk, build_reconciler
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_index import Shelf, slide_id_of
from server.slides.slide_record import SlideError, SlideRecord
from server.upkeep import archive_walk

ERROR = SlideError(code="no_tissue", detail="None.")


@pytest.fixture(params=["local", "bucket"])
def parts(request: pytest.FixtureRequest, make_app: Callable[..., FastAPI]) -> Parts:
    built: Parts = make_app(store_url="memory:///" if request.param == "bucket" else "").state.parts
    return built


async def an_older_releases(parts: Parts, tenant: str = "default") -> dict[str, SlideRecord]:
    """Slides without an index."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    facts: list[tuple[str, dict[str, object]]] = [
        ("ready", {"ready": True}),
        ("failed", {"error": ERROR}),
        ("waiting", {}),
        ("old", {"ready": True}),
    ]
    records = {
        name: await stored_slide(parts, name, tenant=tenant, created_at=began - timedelta(days=number), **more)  # type: ignore[arg-type]
        for number, (name, more) in enumerate(facts)
    }
    await parts.store.delete_folder("index")
    return records


async def shelf(parts: Parts, name: Shelf, tenant: str = "default") -> list[str]:
    """The names that the slides on a shelf were made from."""
    entries = await parts.slides.index.entries(name, tenant, "", 100)
    return [bytes.fromhex(slide_id_of(entry)).decode().rstrip("\0") for entry in entries]


async def test_an_older_releases_archive_is_taken_over(parts: Parts, redis: Redis) -> None:
    records = await an_older_releases(parts)
    await an_older_releases(parts, "other")
    await parts.store.put("tenants/NOT-OURS/slides/x/y", b"")
    assert not await parts.slides.shelf_is_whole("default", "all")

    assert await build_archive_walk(parts).walk_all() == 8

    for tenant in ("default", "other"):
        assert await shelf(parts, "all", tenant) == ["ready", "failed", "waiting", "old"]
        assert await shelf(parts, "failed", tenant) == ["failed"]
        assert await shelf(parts, "pending", tenant) == ["waiting"]
        assert await parts.slides.shelf_is_whole(tenant, "all")
    assert await build_reconciler(parts).round() == 2
    assert await parts.jobs.find(records["waiting"]) is not None
    stored = await parts.store.stored_bytes("tenants/default/slides")
    assert (await parts.usage.report("default")).stored_bytes == stored


@pytest.mark.parametrize("write", [0, 2, 5, 7])
async def test_a_walk_that_is_killed_is_gone_on_with(
    parts: Parts, redis: Redis, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_walk, "_AT_ONCE", 1)
    monkeypatch.setattr(archive_walk, "_NOTED_EVERY", 2)
    await an_older_releases(parts)
    with killed_before_write(parts.store, write) as was_killed:
        await build_archive_walk(parts).walk_all()
    assert was_killed()
    assert not await parts.slides.shelf_is_whole("default", "all")
    state = await parts.slides.index.state("default")
    await redis.delete("eyepiece:archive-walk")  # it expires

    assert await build_archive_walk(parts).walk_all() == (2 if state and state.after else 4)

    assert await shelf(parts, "all") == ["ready", "failed", "waiting", "old"]
    assert (await shelf(parts, "failed"), await shelf(parts, "pending")) == (["failed"], ["waiting"])
    assert await parts.slides.shelf_is_whole("default", "all")


async def test_until_an_archive_is_taken_over_its_list_says_so(
    make_app: Callable[..., FastAPI], parts: Parts, client: httpx.AsyncClient
) -> None:
    local: Parts = make_app().state.parts
    await an_older_releases(local)
    assert (await client.get("/v1/slides")).json() == {
        "object": "list",
        "data": [],
        "next_cursor": None,
        "complete": False,
    }

    await build_archive_walk(local).walk_all()

    page = (await client.get("/v1/slides")).json()
    assert (page["data"][0]["filename"], page["complete"]) == ("ready.svs", True)


async def test_another_model_needs_every_slide_again(parts: Parts, redis: Redis) -> None:
    records = await an_older_releases(parts)
    await build_archive_walk(parts).walk_all()
    await build_reconciler(parts).round()
    slides = SlideCatalogue(parts.store, redis, lambda mpp, features, budget: "e" * 16)
    other = dataclasses.replace(parts, slides=slides)
    assert await slides.shelf_is_whole("default", "all")
    assert not await slides.shelf_is_whole("default", "pending")

    await build_archive_walk(other).walk_all()

    assert sorted(await shelf(other, "pending")) == sorted(records)
    assert await slides.shelf_is_whole("default", "pending")
    # The server of the model before, which is still there, does not take away what the new one needs.
    await build_reconciler(parts).round()
    assert sorted(await shelf(other, "pending")) == sorted(records)


async def test_what_was_lost_is_found_within_a_day(parts: Parts, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    records = await an_older_releases(parts)
    walk = build_archive_walk(parts)
    await walk.walk_all()
    await build_reconciler(parts).round()
    ready, old = records["ready"], records["old"]
    await parts.store.delete(ready.paths.embedding(ready.encoder_id))  # by hand
    await parts.store.put(f"{old.paths.parts(old.encoder_id)}/000000000-1.safetensors", b"part")
    await parts.store.put(f"tenants/default/slides/{'ab' * 32}/source/slide", b"left by an upload")
    assert await walk.walk_all() == 0, "it is not due"

    monkeypatch.setattr(archive_walk, "now", lambda: datetime.now(UTC) + timedelta(days=2))
    assert await walk.walk_all() == 5
    reconciler = build_reconciler(parts)
    for _ in range(2):
        await reconciler.round()

    assert await parts.jobs.find(ready) is not None
    assert await parts.store.folders(old.paths.all_parts) == []
    assert "ab" * 32 not in await parts.store.folders("tenants/default/slides")


async def test_a_slide_that_is_well_is_not_opened(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    await an_older_releases(parts)
    walk = build_archive_walk(parts)
    await walk.walk_all()
    opened: list[str] = []
    look = parts.slides.look

    async def noted(tenant: str, slide_id: str) -> object:
        opened.append(bytes.fromhex(slide_id).decode().rstrip("\0"))
        return await look(tenant, slide_id)

    monkeypatch.setattr(parts.slides, "look", noted)
    monkeypatch.setattr(archive_walk, "now", lambda: datetime.now(UTC) + timedelta(days=2))
    await walk.walk_all()

    assert sorted(opened) == ["failed", "waiting"]


async def test_a_damaged_record_is_listed_and_failed(parts: Parts) -> None:
    records = await an_older_releases(parts)
    await parts.store.put(records["ready"].paths.record, b"{")

    await build_archive_walk(parts).walk_all()

    assert sorted(await shelf(parts, "failed")) == ["failed", "ready"]
    assert len(await shelf(parts, "all")) == 4


async def test_one_replica_walks_at_a_time(parts: Parts, redis: Redis) -> None:
    await an_older_releases(parts)
    async with redis.lock("eyepiece:archive-walk", timeout=60):
        assert await build_archive_walk(parts).walk_all() == 0

    assert await build_archive_walk(parts).walk_all() == 4
