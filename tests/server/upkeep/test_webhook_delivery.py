"""Every event comes to each receiver that wants it, once where nobody dies, and what cannot come is seen."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
from api_parts import until
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway
from webhook_receiver import Receiver, endpoint_at, event_of, running_receiver

from server.settings import Settings
from server.telemetry.metrics import Metrics
from server.upkeep.webhook_delivery import WebhookDelivery
from server.webhooks import delivery_queue, post_event
from server.webhooks.delivery_queue import Delivery, DeliveryQueue, wait_s
from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.outbox import Outbox
from server.webhooks.webhooks import Webhooks

DUE = "eyepiece:{default}:webhooks:lis:due"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def outbox(redis: Redis) -> Outbox:
    return Outbox(redis)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@asynccontextmanager
async def delivering(
    redis: Redis, endpoints: Sequence[WebhookEndpoint], metrics: Metrics, attempts: int = 3
) -> AsyncIterator[None]:
    """An API process delivers, and is asked to end."""
    webhooks = Webhooks(redis, endpoints)
    work = WebhookDelivery(Outbox(redis), webhooks, attempts, metrics, tick_s=0.01, waits=lambda *_: 0.0)
    running = asyncio.create_task(work.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def counted(metrics: Metrics, outcome: str) -> float:
    name = "eyepiece_webhook_deliveries_total"
    return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


async def is_empty(queue: DeliveryQueue) -> bool:
    return await queue.counts() == (0, 0)


async def test_each_event_comes_once_however_many_processes_deliver_and_however_often_it_is_told(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    endpoint = endpoint_at(receiver.url)
    events = [event_of(str(number)) for number in range(40)]
    async with delivering(redis, [endpoint], metrics), delivering(redis, [endpoint], metrics):
        for event in [*events, *events[:10]]:
            await outbox.add(event)
        await until(lambda: len(receiver.got) == 40)
        await outbox.add(events[0])  # a worker that was killed behind it tells it again
        await until(lambda: _is_drained(redis))
        await until(lambda: is_empty(DeliveryQueue(redis, endpoint)))

    assert sorted(receiver.got) == sorted(event.id for event in events)
    assert counted(metrics, "delivered") == 40


async def _is_drained(redis: Redis) -> bool:
    return not await redis.exists("eyepiece:webhooks:events")


async def test_each_endpoint_gets_what_it_wants_of_its_tenant(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    with running_receiver() as second, running_receiver() as others:
        endpoints = [
            endpoint_at(receiver.url),
            endpoint_at(second.url, name="failures", events=("slide.failed",)),
            endpoint_at(others.url, name="others", tenant="b"),
        ]
        ready, failed, theirs = event_of("1"), event_of("2", error_code="no_tissue"), event_of("1", tenant="b")
        async with delivering(redis, endpoints, metrics):
            for event in (ready, failed, theirs, event_of("1", tenant="nobody")):
                await outbox.add(event)
            await until(lambda: len(receiver.got) + len(second.got) + len(others.got) == 4)
            await until(lambda: _is_drained(redis))

        assert sorted(receiver.got) == sorted([ready.id, failed.id])
        assert (second.got, others.got) == ([failed.id], [theirs.id])


async def test_a_receiver_that_fails_for_a_while_gets_it_once_with_the_same_id_and_body(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.answers = [500, 503]
    async with delivering(redis, [endpoint_at(receiver.url)], metrics):
        await outbox.add(event_of())
        await until(lambda: bool(receiver.got))

    assert receiver.got == [event_of().id]
    assert len({(headers["webhook-id"], body) for _, headers, body in receiver.asked}) == 1
    assert (len(receiver.asked), counted(metrics, "retried")) == (3, 2)


async def test_what_never_comes_is_a_dead_letter_and_can_be_replayed(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    endpoint = endpoint_at(receiver.url)
    queue = DeliveryQueue(redis, endpoint)
    with running_receiver() as private:
        receiver.answers, receiver.headers = [307] * 3, {"Location": private.url}
        async with delivering(redis, [endpoint], metrics):
            await outbox.add(event_of())
            await until(lambda: _has_dead(queue))
            (dead,) = await queue.dead()
            shown = metrics.registry.get_sample_value
            await until(lambda: shown("eyepiece_webhooks_dead") == 1)
            receiver.headers = {}
            assert await queue.replay(frozenset({"evt_another"})) == 0
            assert await queue.replay(None) == 1
            await until(lambda: bool(receiver.got))
            await until(lambda: is_empty(queue))

        assert private.asked == []
    assert (dead.attempts, dead.reason, dead.status, dead.event.id) == (3, "redirect", 307, event_of().id)
    assert receiver.got == [event_of().id]
    assert counted(metrics, "dead") == 1


async def _has_dead(queue: DeliveryQueue) -> bool:
    return (await queue.counts())[1] > 0


async def test_who_says_gone_is_not_asked_again(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.answers = [410]
    endpoint = endpoint_at(receiver.url)
    async with delivering(redis, [endpoint], metrics):
        await outbox.add(event_of())
        await until(lambda: _has_dead(DeliveryQueue(redis, endpoint)))

    assert len(receiver.asked) == 1


async def test_a_slow_receiver_holds_up_no_other(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    with running_receiver() as slow:
        slow.goes_on.clear()
        async with delivering(redis, [endpoint_at(slow.url, name="slow"), endpoint_at(receiver.url)], metrics):
            for number in range(10):
                await outbox.add(event_of(str(number)))
            await until(lambda: len(receiver.got) == 10)
            assert slow.got == []
            slow.goes_on.set()
            await until(lambda: len(slow.got) == 10)

        assert len(set(slow.got)) == 10


async def test_a_process_that_is_asked_to_end_waits_for_what_it_has_begun(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.goes_on.clear()
    endpoint = endpoint_at(receiver.url)
    async with delivering(redis, [endpoint], metrics):
        await outbox.add(event_of())
        await until(lambda: bool(receiver.asked))
        asyncio.get_running_loop().call_later(0.05, receiver.goes_on.set)

    assert receiver.got == [event_of().id]
    assert await is_empty(DeliveryQueue(redis, endpoint))


DELIVER = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from server.settings import Settings
from server.storage.redis_client import connect_redis
from server.telemetry.metrics import Metrics
from server.upkeep.webhook_delivery import WebhookDelivery
from server.webhooks.outbox import Outbox
from server.webhooks.webhooks import Webhooks

settings = Settings()
redis = connect_redis(settings)
webhooks = Webhooks(redis, settings.webhooks)
asyncio.run(WebhookDelivery(Outbox(redis), webhooks, 3, Metrics(CollectorRegistry()), tick_s=0.01).run())
"""


async def test_kill_9_of_the_delivering_process_loses_nothing(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics, settings: Settings
) -> None:
    endpoint = endpoint_at(receiver.url)
    secret = endpoint.secrets[0].get_secret_value()
    said = f'[{{"name": "lis", "tenant": "default", "url": "{receiver.url}", "secrets": ["{secret}"]}}]'
    receiver.goes_on.clear()
    events = [event_of(str(number)) for number in range(9)]
    for event in events:
        await outbox.add(event)
    process = another_process(settings.redis_url.get_secret_value(), said)
    try:
        await until(lambda: len(receiver.asked) == 4)  # as many as it has at once
        await until(lambda: _is_drained(redis))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    receiver.goes_on.set()

    async with delivering(redis, [endpoint], metrics):
        await until(lambda: _only_leased(redis, 4))  # what nobody had in hand has come
        await pass_time(redis)
        await until(lambda: is_empty(DeliveryQueue(redis, endpoint)))

    assert set(receiver.got) == {event.id for event in events}
    assert all(receiver.got.count(event.id) <= 2 for event in events)  # those in hand may have come twice


def another_process(redis_url: str, endpoints: str) -> subprocess.Popen[bytes]:
    environment = {"EYEPIECE_REDIS_URL": redis_url, "EYEPIECE_WEBHOOKS": endpoints}
    return subprocess.Popen([sys.executable, "-c", DELIVER], env=environment)


async def _only_leased(redis: Redis, count: int) -> bool:
    return int(await redis.zcard(DUE)) == count


async def pass_time(redis: Redis) -> None:
    """Leases end."""
    for event_id in await redis.zrange(DUE, 0, -1):
        await redis.zadd(DUE, {event_id: 0})


async def test_an_event_that_was_half_handed_on_comes_once(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    """Whoever handed it on died before it was taken from the outbox, and it was delivered before another looked."""
    endpoint = endpoint_at(receiver.url)
    await DeliveryQueue(redis, endpoint).add(event_of())
    async with delivering(redis, [endpoint], metrics):
        await until(lambda: bool(receiver.got))
        await outbox.add(event_of())
        await until(lambda: _is_drained(redis))
        await until(lambda: is_empty(DeliveryQueue(redis, endpoint)))

    assert receiver.got == [event_of().id]


async def test_a_late_failure_does_not_bring_back_what_another_has_delivered(redis: Redis) -> None:
    queue = DeliveryQueue(redis, endpoint_at("https://lis.hospital.example/"))
    await queue.add(event_of())
    (mine,) = await queue.take(1)
    assert await queue.take(1) == []  # leased
    await pass_time(redis)
    (theirs,) = await queue.take(1)
    await queue.done(theirs)

    await queue.put_back(mine, 0)

    assert await is_empty(queue)


async def test_queues_are_bounded_and_what_does_not_fit_is_seen(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_queue, "_MOST_WAITING", 2)
    monkeypatch.setattr(delivery_queue, "MOST_DEAD", 1)
    queue = DeliveryQueue(redis, endpoint_at("https://lis.hospital.example/"))

    for number in range(4):
        await queue.add(event_of(str(number)))

    assert await queue.counts() == (2, 1)
    (dead,) = await queue.dead()
    assert (dead.event.id, dead.reason) == (event_of("3").id, "queue_full")


async def test_without_endpoints_nothing_piles_up(redis: Redis, outbox: Outbox, metrics: Metrics) -> None:
    await outbox.add(event_of())
    async with delivering(redis, [], metrics):
        await until(lambda: _is_drained(redis))


async def test_what_cannot_be_read_stops_nothing(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics
) -> None:
    await redis.lpush("eyepiece:webhooks:events", b"no json", b'{"of": "another release"}')
    await outbox.add(event_of())
    async with delivering(redis, [endpoint_at(receiver.url)], metrics):
        await until(lambda: bool(receiver.got))
        await until(lambda: _is_drained(redis))


async def test_redis_keeps_deliveries_when_its_memory_is_full(redis: Redis) -> None:
    """Under `volatile-lru` keys with a lifetime may go."""
    queue = DeliveryQueue(redis, endpoint_at("https://lis.hospital.example/"))
    await queue.add(event_of("1"))
    await queue.add(event_of("2"))
    (first,) = await queue.take(1)
    await queue.bury(first)
    await Outbox(redis).add(event_of("3"))

    lasting = {key.decode() for key in await redis.keys("*") if await redis.ttl(key) == -1}
    assert lasting == {
        "eyepiece:webhooks:events",
        *(f"eyepiece:{{default}}:webhooks:lis:{part}" for part in ("due", "held", "dead", "dead-order")),
    }


def test_waits_grow_to_six_hours_and_take_about_three_days() -> None:
    lengths = [sum(wait_s(1) for _ in range(100)) / 100, wait_s(30), wait_s(1, 10**9)]
    whole_s = sum(sum(wait_s(attempt) for attempt in range(1, 20)) for _ in range(20)) / 20

    assert 4 < lengths[0] < 6
    assert all(4.5 * 3600 <= length <= 7.5 * 3600 for length in lengths[1:])
    assert 60 * 3600 < whole_s < 84 * 3600


def test_a_lease_outlasts_an_attempt() -> None:
    assert delivery_queue.LEASE_S > 2 * post_event.ATTEMPT_S


async def test_redis_away_for_a_while_costs_nothing(
    redis: Redis, outbox: Outbox, receiver: Receiver, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, failed = DeliveryQueue.take, list[bool]()

    async def away_at_first(queue: DeliveryQueue, count: int) -> list[Delivery]:
        if len(failed) < 3:
            failed.append(True)
            raise RedisAway
        return await take(queue, count)

    monkeypatch.setattr(DeliveryQueue, "take", away_at_first)
    async with delivering(redis, [endpoint_at(receiver.url)], metrics):
        await outbox.add(event_of())
        await until(lambda: bool(receiver.got))

    assert len(failed) == 3


async def test_it_ends_though_what_it_waits_for_swallows_the_cancellation(
    redis: Redis, receiver: Receiver, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = asyncio.Event()

    async def swallows(queue: DeliveryQueue, count: int) -> list[Delivery]:
        taking.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return []

    monkeypatch.setattr(DeliveryQueue, "take", swallows)
    async with asyncio.timeout(60), delivering(redis, [endpoint_at(receiver.url)], metrics):
        await taking.wait()
