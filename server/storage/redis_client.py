"""The one place where a Redis connection is opened."""

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection

from server.settings import Settings

# Longer than any blocking read of ours (2 s), shorter than a client's patience.
_SOCKET_TIMEOUT_S = 15.0
# Of the process itself: jobs, looks at readiness, the reconciler.
_OWN_CONNECTIONS = 64
# More than a busy API uses at one moment, event streams aside.
MOST_IDLE = 16


class FewIdlePool(ConnectionPool):
    """redis-py's pool keeps all connections open that were ever used at once: after an hour with a thousand event
    streams, a thousand for good. This one keeps a few. **It depends on a private name** (`_available_connections`);
    tests/server/storage/test_redis_client.py fails when that changes."""

    async def release(self, connection: AbstractConnection) -> None:
        """Give a connection back; if too many are idle now, the one that has been so longest is closed."""
        await super().release(connection)
        while len(self._available_connections) > MOST_IDLE:
            await self._available_connections.pop(0).disconnect(nowait=True)


def connect_redis(settings: Settings) -> Redis:
    """A client with a pool; nothing is sent before the first command, so start order does not matter.

    RESP2 is asked for: its reply shapes are the ones that SAQ and we read.
    """
    pool = FewIdlePool.from_url(
        settings.redis_url.get_secret_value(),
        protocol=2,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=2.0,
        health_check_interval=30,
        # One for each client that may be connected: a pool that is smaller (100, if nothing is said) is emptied by one
        # tenant's event streams, each of which holds a connection, and then nobody's uploads get any.
        max_connections=settings.max_connections + _OWN_CONNECTIONS,
    )
    return Redis.from_pool(pool)
