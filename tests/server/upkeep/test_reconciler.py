"""What the reconciler finds again, gives up, removes, and leaves alone."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from api_parts import stored_slide
from fastapi import FastAPI
from redis.asyncio import Redis
from saq import Status

from server.api.parts import Parts
from server.app import build_reconciler
from server.encoding.encode_worker import WorkerQueue
from server.slides.progress import Event
from server.slides.slide_index import Shelf
from server.slides.slide_record import SlideError, SlideRecord
from server.storage.slide_store import slides_folder
from server.upkeep import reconciler as reconciler_module
from server.upkeep.reconciler import GAVE_UP, Reconciler


@pytest.fixture
def reconciler(parts: Parts) -> Reconciler:
    return build_reconciler(parts)


async def exhaust(parts: Parts, record: SlideRecord) -> None:
    """The slide's job was killed as often as it may be."""
    await parts.jobs.enqueue(record)
    queue = WorkerQueue(parts.jobs)
    job = await queue.dequeue()
    assert job is not None
    job.attempts = job.retries
    await job.finish(Status.ABORTED, error="swept")


def reconciled(parts: Parts, action: str) -> float:
    value = parts.metrics.registry.get_sample_value("eyepiece_slides_reconciled_total", {"action": action})
    return value or 0.0


async def test_a_slide_whose_job_was_lost_is_queued_again(parts: Parts, reconciler: Reconciler, redis: Redis) -> None:
    record = await stored_slide(parts)
    await parts.jobs.enqueue(record)
    await redis.flushall()

    assert await reconciler.round() == 1

    assert await parts.jobs.find(record) is not None
    assert reconciled(parts, "requeued") == 1


async def test_slides_of_every_tenant_are_looked_at(parts: Parts, reconciler: Reconciler) -> None:
    records = [await stored_slide(parts, "x", tenant=tenant) for tenant in ("a", "b", "c")]

    assert await reconciler.round() == 3
    assert all([await parts.jobs.find(record) for record in records])


async def test_what_waits_runs_is_ready_or_failed_is_left_alone(parts: Parts, reconciler: Reconciler) -> None:
    running, waiting = await stored_slide(parts, "running"), await stored_slide(parts, "waiting")
    await parts.jobs.enqueue(running)
    job = await WorkerQueue(parts.jobs).dequeue()
    assert job is not None
    await job.update(status=Status.ACTIVE)
    await parts.jobs.enqueue(waiting)
    await stored_slide(parts, "ready", ready=True)
    await stored_slide(parts, "failed", error=SlideError(code="no_tissue", detail="None."))

    assert await reconciler.round() == 0
    assert await reconciler.round() == 0
    assert (await parts.jobs.depth("routine")).queued == 1


async def test_a_slide_that_stopped_every_worker_becomes_failed(parts: Parts, reconciler: Reconciler) -> None:
    record = await stored_slide(parts)
    await exhaust(parts, record)

    assert await reconciler.round() == 1

    assert (await parts.slides.require(record.tenant, record.id)).error == GAVE_UP
    last = await parts.progress.last(record.tenant, record.id)
    assert last is not None
    assert (last.name, last.data["code"]) == ("failed", GAVE_UP.code)
    ((_, told),) = await parts.outbox.oldest(10)
    assert told is not None
    assert (told.type, told.slide_id) == ("slide.failed", record.id)
    assert await reconciler.round() == 0
    assert reconciled(parts, "gave_up") == 1


async def test_a_slide_that_was_given_up_can_be_encoded_again(
    parts: Parts, reconciler: Reconciler, redis: Redis
) -> None:
    record = await stored_slide(parts)
    await exhaust(parts, record)
    await reconciler.round()

    again = await parts.slides.update(record, lambda stored: stored.model_copy(update={"error": None}))
    assert again is not None
    await parts.jobs.enqueue(again)
    assert await reconciler.round() == 0
    await redis.delete(*await redis.keys("saq:eyepiece-*"))  # and now Redis loses the job
    for key in await redis.keys("saq:job:*"):
        await redis.delete(key)

    assert await reconciler.round() == 1
    assert (await parts.slides.require(record.tenant, record.id)).error is None


async def test_a_job_that_waits_is_not_given_up_for_an_older_one(parts: Parts, reconciler: Reconciler) -> None:
    urgent = await stored_slide(parts, priority="urgent")
    await exhaust(parts, urgent)
    routine = await parts.slides.update(urgent, lambda stored: stored.model_copy(update={"priority": "routine"}))
    assert routine is not None
    await parts.jobs.enqueue(routine)

    assert await reconciler.round() == 0
    assert (await parts.slides.require(urgent.tenant, urgent.id)).error is None


OTHER_ENCODER = "0" * 16


async def with_parts(parts: Parts, record: SlideRecord, *encoders: str) -> SlideRecord:
    for encoder in encoders:
        await parts.store.put(f"{record.paths.parts(encoder)}/000000000-1.safetensors", b"part")
    return record


async def test_parts_that_nobody_will_ask_for_are_removed(parts: Parts, reconciler: Reconciler) -> None:
    ready, failed, waiting = [
        await stored_slide(parts, "ready", ready=True),
        await stored_slide(parts, "failed", error=SlideError(code="no_tissue", detail="None.")),
        await stored_slide(parts, "waiting"),
    ]
    for record in (ready, failed, waiting):
        await with_parts(parts, record, record.encoder_id, OTHER_ENCODER)

    await reconciler.round()

    left = [await parts.store.folders(record.paths.all_parts) for record in (ready, failed, waiting)]
    assert left == [[], [], [waiting.encoder_id]]
    assert reconciled(parts, "parts_removed") == 3
    assert await parts.embeddings.exists(ready)


async def test_parts_of_a_slide_that_is_given_up_are_removed(parts: Parts, reconciler: Reconciler) -> None:
    record = await stored_slide(parts)
    await with_parts(parts, record, record.encoder_id)
    await exhaust(parts, record)

    await reconciler.round()

    assert await parts.store.folders(record.paths.all_parts) == []


async def test_a_store_is_not_asked_for_parts_every_round(
    parts: Parts, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, ready = await stored_slide(parts, "waiting"), await stored_slide(parts, "ready", ready=True)
    listed: list[str] = []
    folders = parts.store.folders

    async def noted(prefix: str) -> list[str]:
        listed.append(prefix)
        return await folders(prefix)

    monkeypatch.setattr(parts.store, "folders", noted)
    for _ in range(3):
        await reconciler.round()

    asked = [prefix for prefix in listed if prefix.endswith("/parts")]
    assert sorted(asked) == sorted([waiting.paths.all_parts, ready.paths.all_parts])


async def test_a_slide_queued_again_forgets_how_its_last_encode_ended(parts: Parts, reconciler: Reconciler) -> None:
    record = await stored_slide(parts)
    await parts.progress.append(record.tenant, record.id, Event("ready", {}))  # by another model

    await reconciler.round()

    assert await parts.progress.last(record.tenant, record.id) is None


async def test_a_folder_without_record_is_removed_on_the_second_look(parts: Parts, reconciler: Reconciler) -> None:
    orphan = await stored_slide(parts, "orphan")
    await parts.store.delete(orphan.paths.record)
    await parts.progress.append(orphan.tenant, orphan.id, Event("progress", {}))

    assert await reconciler.round() == 0
    assert await parts.store.folders(slides_folder(orphan.tenant)) == [orphan.id]
    assert await reconciler.round() == 1

    assert await parts.store.folders(slides_folder(orphan.tenant)) == []
    assert await parts.progress.last(orphan.tenant, orphan.id) is None
    assert reconciled(parts, "orphan_removed") == 1


async def test_an_upload_that_ends_between_two_looks_is_kept(parts: Parts, reconciler: Reconciler) -> None:
    record = await stored_slide(parts)
    await parts.store.delete(record.paths.record)
    await reconciler.round()

    await parts.slides.create(record)
    await reconciler.round()
    await parts.store.delete(record.paths.record)
    await reconciler.round()

    assert await parts.store.get(record.paths.source) == b"bytes"


async def test_one_bad_slide_does_not_hide_the_others(parts: Parts, reconciler: Reconciler) -> None:
    bad, good = await stored_slide(parts, "a bad one"), await stored_slide(parts, "good")
    await parts.store.put(bad.paths.record, b'{"id": "no record"}')
    await parts.store.put("tenants/NOT-OURS/slides/x/y", b"")

    assert await reconciler.round() == 1
    assert await parts.jobs.find(good) is not None


async def test_a_full_queue_is_tried_again_next_round(make_app: Callable[..., FastAPI]) -> None:
    parts: Parts = make_app(max_queued_jobs=1).state.parts
    for name in ("a", "b"):
        await stored_slide(parts, name)
    reconciler = build_reconciler(parts)

    assert await reconciler.round() == 1
    job = await WorkerQueue(parts.jobs).dequeue()
    assert job is not None
    record = await parts.slides.require("default", str((job.kwargs or {})["slide_id"]))
    await parts.slides.update(record, lambda stored: stored.model_copy(update={"error": GAVE_UP}))
    await job.finish(Status.COMPLETE)

    assert await reconciler.round() == 1


async def test_a_round_reads_what_is_to_be_done_and_not_what_is_stored(
    parts: Parts, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = SlideError(code="no_tissue", detail="None.")
    for name in "abc":
        await stored_slide(parts, name, ready=True)
    await stored_slide(parts, "failed", error=error)
    waiting = await stored_slide(parts, "waiting")
    await reconciler.round()
    asked: list[str] = []

    def noted(method: str) -> Callable[..., object]:
        real = getattr(parts.store, method)

        def noting(*arguments: object, **named: object) -> object:
            asked.append(method)
            return real(*arguments, **named)

        return noting

    for method in ("get", "exists", "put", "folders", "objects", "keys_after", "stored_bytes", "discard"):
        monkeypatch.setattr(parts.store, method, noted(method))
    await reconciler.round()

    assert asked == ["keys_after", "keys_after"]
    assert await parts.jobs.find(waiting) is not None


@pytest.mark.parametrize("path", ["default/x", "default/82040/80/442937-", "default", "../default/x", "NOT-OURS/8/2/3"])
async def test_what_is_no_entry_is_passed_over_and_nothing_is_removed_for_it(
    parts: Parts, reconciler: Reconciler, path: str
) -> None:
    record = await stored_slide(parts)
    stray = Path(str(parts.store.local_root)) / "index/pending" / path
    stray.parent.mkdir(parents=True, exist_ok=True)
    if not stray.is_dir():
        stray.write_bytes(b"")

    for _ in range(3):
        await reconciler.round()

    assert await parts.store.exists(record.paths.source)
    assert await parts.jobs.find(record) is not None
    assert not await parts.slides.remove_orphan("default", "")


async def test_a_round_ends_in_time_and_the_next_one_goes_on(parts: Parts, reconciler: Reconciler) -> None:
    records = [await stored_slide(parts, name, tenant=name) for name in "abc"]

    assert [await reconciler.round(until=0.0) for _ in range(3)] == [1, 1, 1]

    assert all([await parts.jobs.find(record) for record in records])


async def test_an_upload_that_takes_long_keeps_nobody_waiting(
    parts: Parts, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "_PATIENCE_S", 0.01)
    slow, other = parts.slides.new_record("a", "a" * 64, "x.svs", 5), await stored_slide(parts, "b", tenant="b")
    async with parts.slides.lock(slow.tenant, slow.id):
        await parts.slides.announce(slow)
        for _ in range(2):
            await reconciler.round()
        await parts.slides.create(slow)
    assert await parts.jobs.find(other) is not None

    await reconciler.round()
    assert await parts.jobs.find(slow) is not None


async def test_a_wish_that_comes_while_a_slide_is_found_ready_is_not_lost(
    parts: Parts, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await stored_slide(parts, ready=True)
    take = parts.slides.index.take

    async def damaged_meanwhile(shelf: Shelf, tenant: str, entry: str) -> None:
        if shelf == "pending":
            await parts.store.delete(record.paths.embedding(record.encoder_id))
        await take(shelf, tenant, entry)

    monkeypatch.setattr(parts.slides.index, "take", damaged_meanwhile)
    assert await reconciler.round() == 0

    assert await reconciler.round() == 1
    assert await parts.jobs.find(record) is not None


async def test_of_two_replicas_one_does_the_round(parts: Parts, redis: Redis) -> None:
    await stored_slide(parts)

    acted = await asyncio.gather(build_reconciler(parts).round_once(), build_reconciler(parts).round_once())

    assert sorted(acted, key=str) == [1, None]


async def test_the_loop_survives_a_redis_that_is_away(
    make_app: Callable[..., FastAPI], settings_without_redis: object, parts: Parts
) -> None:
    app = make_app(settings_without_redis, reconcile_every_s=0)
    running = asyncio.create_task(build_reconciler(app.state.parts).run())

    for _ in range(200):
        await asyncio.sleep(0)

    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
