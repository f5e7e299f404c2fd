"""Step 9, stream: events become server-sent events; a client that hangs up ends the work behind them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from model_store.errors import EyepieceError
from server.errors import Draining, openai_error
from server.slides.progress import Event
from server.to_the_end import stop, to_the_end

T = TypeVar("T")

# Shorter than the idle limit of common proxies (HAProxy and nginx: 30–60 s).
_KEEPALIVE_S = 15.0
_DONE = "[DONE]"
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
            await to_the_end(self._resources.aclose())


def sse_response(
    events: AsyncGenerator[Event, None], cut: "asyncio.Future[None]", resources: AsyncExitStack | None = None
) -> EventStream:
    """Native events: `event:`, one-line JSON `data:`, and `id:` where the stream can be resumed.

    When `cut` is done the stream ends with the error `draining`.
    """
    last_words = _native(_error_event(_cut_short()))
    return EventStream(_with_keepalive(events, _native, cut, last_words), resources)


def openai_response(
    chunks: AsyncGenerator[dict[str, Any], None], cut: "asyncio.Future[None]", resources: AsyncExitStack
) -> EventStream:
    """OpenAI chunks: `data:` only, then `data: [DONE]`; the same error in OpenAI's envelope."""
    last_words = _data_only(orjson.dumps(openai_error(_cut_short())).decode()) + _data_only(_DONE)
    return EventStream(_with_keepalive(_closed_by_done(chunks), _data_only, cut, last_words), resources)


async def errors_as_events(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events, and an `error` event as the last one when they break off: the status line was sent long ago."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except EyepieceError as error:
            yield _error_event(error)


async def unless_disconnected(request: Request, work: Awaitable[T], cut: "asyncio.Future[None]") -> T | None:
    """The result of `work`, or None when the client went away first; then the work is cancelled.

    Raises:
        Draining: `cut` was done first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        waited_for: set[asyncio.Future[Any]] = {task, gone, cut}
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(task)
        await stop(gone)
    if not task.cancelled():  # also when it was done at the last moment: what it has opened must be closed
        return task.result()
    if cut.done():
        raise _cut_short()
    return None


def _cut_short() -> Draining:
    return Draining("The server shuts down and the answer took too long; ask again.")


def _error_event(error: EyepieceError) -> Event:
    return Event("error", {"code": error.code, "detail": error.detail})


def _native(event: Event) -> bytes:
    return format_sse_event(data_str=orjson.dumps(event.data).decode(), event=event.name, id=event.id)


async def _closed_by_done(chunks: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[str, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield orjson.dumps(chunk).decode()
    yield _DONE


def _data_only(data: str) -> bytes:
    return format_sse_event(data_str=data)


async def _with_keepalive(
    items: AsyncGenerator[T, None], encode: Callable[[T], bytes], cut: "asyncio.Future[None]", last_words: bytes
) -> AsyncGenerator[bytes, None]:
    """Encoded items, with a comment whenever nothing came for a while; `last_words` once `cut` is done."""
    upcoming: asyncio.Task[T] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(items))
            waited_for: set[asyncio.Future[Any]] = {upcoming, cut}
            await asyncio.wait(waited_for, timeout=_KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                if cut.done():
                    yield last_words
                    return
                yield KEEPALIVE_COMMENT
                continue
            finished, upcoming = upcoming, None
            try:
                yield encode(finished.result())
            except StopAsyncIteration:
                return
    finally:
        if upcoming is not None:
            await stop(upcoming)
        await to_the_end(items.aclose())


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
