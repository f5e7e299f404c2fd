"""The client of Redis that API and workers share among their tasks."""

from redis.asyncio import Redis

from server.settings import Settings
from server.storage.redis_client import MOST_IDLE, connect_redis


async def test_event_streams_cannot_use_up_the_connections_that_everything_else_needs() -> None:
    settings = Settings()
    redis = connect_redis(settings)

    assert redis.connection_pool.max_connections > settings.max_concurrent_followers + settings.max_concurrent_uploads
    assert redis.connection_pool.max_connections > settings.max_connections
    await redis.aclose()


async def test_connections_that_were_needed_at_once_are_not_kept_for_good(redis: Redis) -> None:
    pool = redis.connection_pool
    many = [await pool.get_connection() for _ in range(3 * MOST_IDLE)]
    for connection in many:
        await pool.release(connection)

    assert sum(connection.is_connected for connection in many) == MOST_IDLE
    assert await redis.ping()
    assert int((await redis.info("clients"))["connected_clients"]) <= MOST_IDLE
