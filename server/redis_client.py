"""The one place where a Redis connection is opened."""

from redis.asyncio import Redis

from server.settings import Settings

# Longer than any blocking read of ours (2 s), shorter than a client's patience.
_SOCKET_TIMEOUT_S = 15.0


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
    )
