"""Rounds of upkeep: a step, a rest, and again until cancelled. Whatever goes wrong costs one round and no more."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from model_store.errors import EyepieceError

log = structlog.get_logger(__name__)


async def go_round(
    step: Callable[[], Awaitable[object]], every_s: float, failed: str, is_busy: Callable[[], bool] = lambda: False
) -> None:
    """Steps with rests of `every_s` between them, none while it `is_busy`; `failed` is what the log calls a failure.

    Ends when the task is cancelled, also where the cancellation was swallowed by what the step waits for: Python 3.11's
    `wait_for`, which redis-py uses, returns a result that has just come instead.
    """
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    while not task.cancelling():
        rests = True
        try:
            await step()
            rests = not is_busy()
        except (RedisError, EyepieceError) as error:
            log.warning(failed, error=type(error).__name__)
        except Exception as error:  # a loop that ends would leave what it looks after for ever
            log.error(failed, exc_info=error)
        if rests and not task.cancelling():
            await asyncio.sleep(every_s)
