"""Ending things whole: what closes a connection is not to be cancelled half-way.

A task that is cancelled tidies up in its `finally`, and may be cancelled there again: Starlette's cancel scope repeats
it at every await until the task has ended. A connection whose closing was broken off is neither open nor closed: its
pool holds it for ever, and what runs at its other end runs on.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import anyio

T = TypeVar("T")
_AGAIN_S: Final = 0.5


async def to_the_end(work: Awaitable[T]) -> T:
    """The result of `work`, which goes on whatever happens to its caller; a cancellation is raised behind it."""
    task = asyncio.ensure_future(work)
    await _until_done(task)
    return task.result()


async def stop(task: "asyncio.Future[Any]") -> None:
    """Cancel a task once and wait until it has tidied up; how it ended is nobody's business."""
    if not task.done():
        task.cancel()
        await _until_done(task)
    if not task.cancelled():
        task.exception()  # or asyncio would complain that nobody has looked at it


async def stop_beating(task: "asyncio.Future[Any]") -> None:
    """Stop a task that goes round for ever, renewing a lock or telling of a job, and wait until it has ended.

    Whatever it awaits may catch a cancellation and return all the same: then it goes round once more, and who cancelled
    once waits for ever while the lock is renewed. So it is cancelled again until it has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            task.cancel()
            try:
                await asyncio.wait([task], timeout=_AGAIN_S)
            except asyncio.CancelledError as error:
                cancelled = error
    if not task.cancelled():
        task.exception()  # as above
    if cancelled is not None:
        raise cancelled


def give_up(task: "asyncio.Future[Any]") -> None:
    """Cancel a task that has nothing to tidy up, and wait for nothing: some turns of the loop less before an answer."""
    if not task.cancel() and not task.cancelled():
        task.exception()  # as above


async def _until_done(task: "asyncio.Future[Any]") -> None:
    """Wait for the task; a cancellation of the caller is raised when it is done."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
