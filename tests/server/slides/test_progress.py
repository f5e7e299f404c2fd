"""Events of a slide: in order, resumed where they were left, trimmed, waited for."""

import asyncio
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from server.errors import QueueUnavailable
from server.settings import Settings
from server.slides.progress import Event, ProgressLog, valid_event_id
from server.storage.redis_client import connect_redis

TENANT, SLIDE = "a", "0" * 64


@pytest.fixture
def progress(redis: Redis) -> ProgressLog:
    return ProgressLog(redis, ttl_s=60)


def step(done: int) -> Event:
    return Event("progress", {"stage": "tile", "done": done, "total": 1000})


async def follow(progress: ProgressLog, count: int, after: str = "0-0") -> list[Event]:
    events: list[Event] = []
    async with aclosing(progress.follow(TENANT, SLIDE, after)) as following:  # type: ignore[type-var]
        async for event in following:
            if event is not None:
                events.append(event)
            if event is None or len(events) == count:
                break
    return events


async def test_events_come_in_the_order_they_were_added(progress: ProgressLog) -> None:
    for done in range(5):
        await progress.append(TENANT, SLIDE, step(done))
    await progress.append(TENANT, SLIDE, Event("ready", {}))

    events = await follow(progress, 6)

    assert [event.data.get("done") for event in events] == [0, 1, 2, 3, 4, None]
    assert [event.is_last for event in events] == [False] * 5 + [True]
    assert all(event.id for event in events)


async def test_a_client_resumes_behind_the_last_event_it_saw(progress: ProgressLog) -> None:
    for done in range(4):
        await progress.append(TENANT, SLIDE, step(done))
    seen = await follow(progress, 2)

    rest = await follow(progress, 2, after=str(seen[-1].id))

    assert [event.data["done"] for event in rest] == [2, 3]


async def test_who_waits_sees_the_next_event(progress: ProgressLog) -> None:
    waiting = asyncio.create_task(follow(progress, 1))

    await progress.append(TENANT, SLIDE, step(1))

    assert [event.data["done"] for event in await waiting] == [1]


async def test_a_quiet_wait_gives_the_caller_a_turn(progress: ProgressLog) -> None:
    async with aclosing(progress.follow(TENANT, SLIDE, "0-0")) as following:  # type: ignore[type-var]
        assert await anext(following) is None


async def test_old_progress_is_forgotten_and_the_end_is_kept(progress: ProgressLog) -> None:
    for done in range(620):
        await progress.append(TENANT, SLIDE, step(done))
    await progress.append(TENANT, SLIDE, Event("failed", {"code": "no_tissue", "detail": "…"}))

    events = await follow(progress, 500)

    assert len(events) == 500
    assert events[0].data["done"] == 121
    assert events[-1].name == "failed"
    assert await progress.last(TENANT, SLIDE) == events[-1]


async def test_events_forget_themselves(progress: ProgressLog, redis: Redis) -> None:
    await progress.append(TENANT, SLIDE, step(1))

    ttls = [await redis.ttl(key) for key in await redis.keys("*")]

    assert len(ttls) == 1
    assert 0 < ttls[0] <= 60


async def test_another_tenant_sees_nothing(progress: ProgressLog) -> None:
    await progress.append("b", SLIDE, step(1))

    assert await progress.last(TENANT, SLIDE) is None
    assert await follow(progress, 1) == []


async def test_forgotten_events_are_gone(progress: ProgressLog) -> None:
    await progress.append(TENANT, SLIDE, step(1))

    await progress.forget(TENANT, SLIDE)

    assert await progress.last(TENANT, SLIDE) is None


@pytest.mark.parametrize(
    "text", ["", None, "$", "+", "abc", "1", "1-", "-1-1", "1-1\n", "1-1 ", "9" * 21 + "-0", "١-١"]
)
def test_an_id_that_is_not_ours_starts_from_the_beginning(text: str | None) -> None:
    assert valid_event_id(text) == "0-0"


@pytest.mark.parametrize("text", ["9" * 20 + "-0", "0-" + "9" * 20, "9" * 19 + "-" + "9" * 19])
async def test_no_id_that_passes_is_too_large_for_redis(progress: ProgressLog, text: str) -> None:
    await progress.append(TENANT, SLIDE, step(1))

    assert len(await follow(progress, 1, after=valid_event_id(text))) <= 1


async def test_redis_away_is_told_in_our_words(settings_without_redis: Settings) -> None:
    redis = connect_redis(settings_without_redis)

    with pytest.raises(QueueUnavailable):
        await follow(ProgressLog(redis, 60), 1)
    await redis.aclose()


@pytest.mark.parametrize("fields", [{"name": "ready"}, {"data": "{}"}, {"name": "ready", "data": "{"}, {"x": "[]"}])
async def test_an_event_that_cannot_be_read_does_not_take_the_others_down(
    progress: ProgressLog, redis: Redis, fields: dict[str, str]
) -> None:
    await redis.xadd(f"eyepiece:{{{TENANT}}}:events:{SLIDE}", fields)  # type: ignore[arg-type]
    assert await progress.last(TENANT, SLIDE) is None
    await progress.append(TENANT, SLIDE, Event("ready", {}))

    async with aclosing(progress.follow(TENANT, SLIDE, "0-0")) as following:  # type: ignore[type-var]
        seen = [await anext(following), await anext(following)]

    assert seen[0] is None  # the caller looks at the record
    assert seen[1] is not None
    assert seen[1].name == "ready"
