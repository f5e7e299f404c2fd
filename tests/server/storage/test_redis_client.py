"""The client of Redis that API and workers share among their tasks."""

from server.settings import Settings
from server.storage.redis_client import connect_redis


async def test_event_streams_cannot_use_up_the_connections_that_everything_else_needs() -> None:
    settings = Settings()
    redis = connect_redis(settings)

    assert redis.connection_pool.max_connections > settings.max_concurrent_followers + settings.max_concurrent_uploads
    assert redis.connection_pool.max_connections > settings.max_connections
    await redis.aclose()
