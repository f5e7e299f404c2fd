"""The one place where a Redis connection is opened."""

from redis.asyncio import Redis

from server.settings import Settings

# Longer than any blocking read of ours (2 s), shorter than a client's patience.
_SOCKET_TIMEOUT_S = 15.0
# Of the process itself: jobs, looks at readiness, the reconciler.
_OWN_CONNECTIONS = 64


def connect_redis(settings: Settings) -> Redis:
    """A client with a pool; nothing is sent before the first command, so start order does not matter.

    RESP2 is asked for: its reply shapes are the ones that SAQ and we read.
    """
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        protocol=2,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=2.0,
        health_check_interval=30,
        # One for each client that may be connected: a pool that is smaller (100, if nothing is said) is emptied by one
        # tenant's event streams, each of which holds a connection, and then nobody's uploads get any.
        max_connections=settings.max_connections + _OWN_CONNECTIONS,
    )
