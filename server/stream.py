"""Step 9, stream: events become server-sent events; a client that hangs up ends the work behind them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

import anyio
import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from model_store.errors import EyepieceError
from server.progress import Event

T = TypeVar("T")

# Shorter than the idle limit of common proxies (HAProxy and nginx: 30–60 s).
_KEEPALIVE_S = 15.0
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """A stream that frees its resources even when the client is gone before the first event: a generator that was
    never started would not run its own `finally`, and one that waits to be read would run it some time later."""

    def __init__(self, content: AsyncGenerator[bytes, None], resources: AsyncExitStack | None = None) -> None:
        super().__init__(content, media_type="text/event-stream", headers=_HEADERS)
        self._resources = resources or AsyncExitStack()
        self._resources.push_async_callback(content.aclose)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream, then free."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._resources.aclose()


def sse_response(events: AsyncGenerator[Event, None], resources: AsyncExitStack | None = None) -> EventStream:
    """Native events: `event:`, one-line JSON `data:`, and `id:` where the stream can be resumed."""
    return EventStream(_with_keepalive(events, _native), resources)


def openai_response(chunks: AsyncGenerator[dict[str, Any], None], resources: AsyncExitStack) -> EventStream:
    """OpenAI chunks: `data:` only, then `data: [DONE]`."""
    return EventStream(_with_keepalive(_closed_by_done(chunks), _data_only), resources)


async def errors_as_events(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events, and an `error` event as the last one when they break off: the status line was sent long ago."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except EyepieceError as error:
            yield Event("error", {"code": error.code, "detail": error.detail})


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`, or None when the client went away first; then the work is cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _native(event: Event) -> bytes:
    return format_sse_event(data_str=orjson.dumps(event.data).decode(), event=event.name, id=event.id)


async def _closed_by_done(chunks: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[str, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield orjson.dumps(chunk).decode()
    yield "[DONE]"


def _data_only(data: str) -> bytes:
    return format_sse_event(data_str=data)


async def _with_keepalive(items: AsyncGenerator[T, None], encode: Callable[[T], bytes]) -> AsyncGenerator[bytes, None]:
    """Encoded items, with a comment whenever nothing came for a while."""
    upcoming: asyncio.Task[T] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(items))
            done, _ = await asyncio.wait({upcoming}, timeout=_KEEPALIVE_S)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            finished, upcoming = upcoming, None
            try:
                yield encode(finished.result())
            except StopAsyncIteration:
                return
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await items.aclose()


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
