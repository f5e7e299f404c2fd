"""Webhooks are delivered: events are handed to the endpoints that want them, and each endpoint's deliveries are tried.

Every API replica does so; leases in Redis keep two from trying the same (server.webhooks.delivery_queue). An endpoint
that is slow or away holds up no other.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from redis.exceptions import RedisError

from server.telemetry.metrics import Metrics
from server.upkeep.rounds import go_round
from server.webhooks.delivery_queue import Delivery, DeliveryQueue, wait_s
from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.outbox import Outbox
from server.webhooks.post_event import ATTEMPT_S, Failure, Poster
from server.webhooks.webhooks import Webhooks

log = structlog.get_logger(__name__)
_AT_ONCE = 4
_EVENTS_AT_ONCE = 100
_NOBODY_EVERY_S = 60.0
_FAILED = "webhooks_wait"


class WebhookDelivery:
    """Runs in every API process; `tick_s` is how often it looks for what is due."""

    def __init__(
        self,
        outbox: Outbox,
        webhooks: Webhooks,
        attempts: int,
        metrics: Metrics,
        *,
        tick_s: float = 1.0,
        waits: Callable[[int, float], float] = wait_s,
        poster: Callable[[WebhookEndpoint], Poster] = Poster,
    ) -> None:
        self._outbox = outbox
        self._webhooks = webhooks
        self._attempts = attempts
        self._metrics = metrics
        self._tick_s = tick_s
        self._waits = waits
        self._poster = poster

    async def run(self) -> None:
        """Until cancelled; then attempts under way are waited for, so that none is made a second time for that."""
        if not self._webhooks.queues:
            await go_round(self._outbox.clear, _NOBODY_EVERY_S, _FAILED)
            return
        async with asyncio.TaskGroup() as together:  # which waits for all that it cancels
            together.create_task(go_round(self.hand_on, self._tick_s, _FAILED))
            together.create_task(go_round(self._show, 5 * self._tick_s, _FAILED))
            for queue in self._webhooks.queues:
                together.create_task(self._serve(queue))

    async def hand_on(self) -> None:
        """Every event in the outbox to those that want it. One that dies in between leaves the event there, and an
        endpoint that has it already does not take it again."""
        while found := await self._outbox.oldest(_EVENTS_AT_ONCE):
            for stored, event in found:
                if event is not None:
                    for queue in self._webhooks.wanting(event):
                        await queue.add(event)
                await self._outbox.remove(stored)

    async def _show(self) -> None:
        counts = [await queue.counts() for queue in self._webhooks.queues]
        self._metrics.webhooks_waiting.set(sum(waiting for waiting, _ in counts))
        self._metrics.webhooks_dead.set(sum(dead for _, dead in counts))

    async def _serve(self, queue: DeliveryQueue) -> None:
        poster = self._poster(queue.endpoint)
        running: set[asyncio.Task[None]] = set()

        async def begin_due() -> None:
            if len(running) < _AT_ONCE:
                for delivery in await queue.take(_AT_ONCE - len(running)):
                    task = asyncio.create_task(self._try(queue, poster, delivery))
                    running.add(task)
                    task.add_done_callback(running.discard)
            if running:  # as soon as one is through there may be another
                await asyncio.wait(running, timeout=self._tick_s, return_when=asyncio.FIRST_COMPLETED)

        try:
            await go_round(begin_due, self._tick_s, _FAILED, lambda: bool(running))
        finally:
            if running:
                await asyncio.wait(running, timeout=ATTEMPT_S + 1)
            await poster.aclose()

    async def _try(self, queue: DeliveryQueue, poster: Poster, delivery: Delivery) -> None:
        try:
            await self._settle(queue, delivery, await poster.post(delivery.event))
        except RedisError as error:  # its lease ends, and it is tried again
            log.warning("webhook_not_settled", webhook=queue.endpoint.name, error=type(error).__name__)
        except Exception as error:  # likewise
            log.error("webhook_not_settled", webhook=queue.endpoint.name, exc_info=error)

    async def _settle(self, queue: DeliveryQueue, delivery: Delivery, failure: Failure | None) -> None:
        if failure is None:
            await queue.done(delivery)
            self._metrics.webhook_deliveries.labels("delivered").inc()
            return
        tried = replace(
            delivery,
            attempts=delivery.attempts + 1,
            tried_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            reason=failure.reason,
            status=failure.status,
        )
        is_last = failure.for_good or tried.attempts >= self._attempts
        if is_last:
            await queue.bury(tried)
        else:
            await queue.put_back(tried, self._waits(tried.attempts, failure.retry_after_s))
        self._metrics.webhook_deliveries.labels("dead" if is_last else "retried").inc()
        say = log.error if is_last else log.warning
        event = "webhook_dead" if is_last else "webhook_failed"
        name, status = queue.endpoint.name, failure.status
        say(event, webhook=name, attempt=tried.attempts, reason=failure.reason, status=status)
