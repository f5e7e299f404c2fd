"""All endpoints of this server, and their queues."""

from collections.abc import Sequence

from redis.asyncio import Redis

from server.webhooks.delivery_queue import DeliveryQueue
from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.event import WebhookEvent


class Webhooks:
    """The operator's endpoints; a tenant has those that name it."""

    def __init__(self, redis: Redis, endpoints: Sequence[WebhookEndpoint]) -> None:
        self.queues = [DeliveryQueue(redis, endpoint) for endpoint in endpoints]

    def of_tenant(self, tenant: str) -> list[DeliveryQueue]:
        """In the order of the settings."""
        return [queue for queue in self.queues if queue.endpoint.tenant == tenant]

    def named(self, tenant: str, name: str) -> DeliveryQueue | None:
        """The tenant's endpoint of this name."""
        return next((queue for queue in self.of_tenant(tenant) if queue.endpoint.name == name), None)

    def wanting(self, event: WebhookEvent) -> list[DeliveryQueue]:
        """Those that are to be told."""
        return [queue for queue in self.of_tenant(event.tenant) if event.type in queue.endpoint.events]
