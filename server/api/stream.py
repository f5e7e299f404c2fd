"""Step 9, stream: events become server-sent events; a client that hangs up ends the work behind them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Generic, TypeVar

import orjson
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from model_store.errors import EyepieceError
from server.errors import Draining, openai_error
from server.slides.progress import Event
from server.to_the_end import give_up, stop, to_the_end

T = TypeVar("T")

# Shorter than the idle limit of common proxies (HAProxy and nginx: 30–60 s).
_KEEPALIVE_S = 15.0
_DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse, Generic[T]):
    """Items as server-sent events, written by the task that also makes them: an event costs no task and no timer.

    A comment is sent when nothing came for a while; `last_words` once `cut` is done; `closing` behind the last item.
    It frees its resources even when the client is gone before the first event: a generator that was never started would
    not run its own `finally`, and one that waits to be read would run it some time later.
    """

    def __init__(
        self,
        items: AsyncGenerator[T, None],
        encode: Callable[[T], bytes],
        cut: "asyncio.Future[None]",
        last_words: bytes,
        *,
        closing: bytes = b"",
        resources: AsyncExitStack | None = None,
    ) -> None:
        super().__init__(items, media_type="text/event-stream", headers=_HEADERS)  # type: ignore[arg-type]  # encoded
        self._items = items
        self._encode = encode
        self._cut = cut
        self._last_words = last_words
        self._closing = closing
        self._resources = resources or AsyncExitStack()
        self._resources.push_async_callback(items.aclose)
        self._is_sending = False
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end, the cut or the client's hang-up, then free."""
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await self._stream(send, gone)
        except OSError as error:  # what a server raises for a connection that is closed (ASGI 2.4)
            raise ClientDisconnect from error
        finally:
            await stop(gone)
            await to_the_end(self._resources.aclose())

    async def _stream(self, send: Send, gone: "asyncio.Future[None]") -> None:
        """Headers, events, end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        clock = asyncio.get_running_loop().time
        self._sent_at = clock()
        writing = asyncio.ensure_future(self._write(send, clock))
        try:
            while not writing.done():
                quiet_s = clock() - self._sent_at
                waited_for: set[asyncio.Future[Any]] = {writing, self._cut, gone}
                await asyncio.wait(
                    waited_for, timeout=max(0, _KEEPALIVE_S - quiet_s), return_when=asyncio.FIRST_COMPLETED
                )
                if writing.done():
                    break
                if gone.done():
                    return
                if self._cut.done():
                    await stop(writing)
                    await send(_body(self._last_words))
                    break
                if clock() - self._sent_at >= _KEEPALIVE_S:
                    if not self._is_sending:  # else the client does not read, and needs no sign of life
                        await send(_body(KEEPALIVE_COMMENT))
                    self._sent_at = clock()
        finally:
            if not writing.done():
                await stop(writing)
            failure = None if writing.cancelled() else writing.exception()
        if failure is not None:
            raise failure
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, clock: Callable[[], float]) -> None:
        async for item in self._items:
            await self._send(send, self._encode(item))
            self._sent_at = clock()
        if self._closing:
            await self._send(send, self._closing)

    async def _send(self, send: Send, content: bytes) -> None:
        self._is_sending = True
        await send(_body(content))
        self._is_sending = False


def sse_response(
    events: AsyncGenerator[Event, None], cut: "asyncio.Future[None]", resources: AsyncExitStack | None = None
) -> EventStream[Event]:
    """Native events: `event:`, one-line JSON `data:`, and `id:` where the stream can be resumed.

    When `cut` is done the stream ends with the error `draining`.
    """
    return EventStream(events, _native, cut, _native(_error_event(_cut_short())), resources=resources)


def openai_response(
    chunks: AsyncGenerator[dict[str, Any], None], cut: "asyncio.Future[None]", resources: AsyncExitStack
) -> EventStream[dict[str, Any]]:
    """OpenAI chunks: `data:` only, then `data: [DONE]`; the same error in OpenAI's envelope."""
    last_words = _data_only(openai_error(_cut_short())) + _DONE
    return EventStream(chunks, _data_only, cut, last_words, closing=_DONE, resources=resources)


async def errors_as_events(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events, and an `error` event as the last one when they break off: the status line was sent long ago."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except EyepieceError as error:
            yield _error_event(error)


async def last_event(events: AsyncGenerator[Event, None]) -> Event:
    """The last of them, for whoever wants the whole at once."""
    async with aclosing(events):
        return [event async for event in events][-1]


async def unless_disconnected(request: Request, work: Awaitable[T], cut: "asyncio.Future[None]") -> T | None:
    """The result of `work`, or None when the client went away first; then the work is cancelled.

    Raises:
        Draining: `cut` was done first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        waited_for: set[asyncio.Future[Any]] = {task, gone, cut}
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(task)
        give_up(gone)
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
    """JSON has no line breaks of its own, and names and ids are ours."""
    resumed_from = f"id: {event.id}\n" if event.id else ""
    return b"event: %s\ndata: %s\n%s\n" % (event.name.encode(), orjson.dumps(event.data), resumed_from.encode())


def _data_only(data: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(data)


def _body(content: bytes) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": True}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
