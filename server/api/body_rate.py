"""The least rate of a request body: who sends slower than that is told so, and what it held is free again."""

import asyncio

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TOO_SLOW_STATUS = 408


class BodyRate:
    """ASGI middleware: for every `window_s` that is spent waiting for a body, `bytes_per_s` × `window_s` bytes must
    come, or the rest of it. Only waiting counts: a slow disk of ours is not the client's fault."""

    def __init__(self, app: ASGIApp, bytes_per_s: int, window_s: float) -> None:
        """`bytes_per_s` 0 sets no limit."""
        self._app = app
        self._window_s = window_s
        self._window_bytes = bytes_per_s * window_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch the body on its way in; what comes behind it, the hang-up, is waited for as long as it takes."""
        if scope["type"] != "http" or not self._window_bytes:
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        is_complete, waited_s, received = False, 0.0, 0

        async def timely() -> Message:
            nonlocal is_complete, waited_s, received
            if is_complete:
                return await receive()
            began = loop.time()
            try:
                async with asyncio.timeout(self._window_s - waited_s):
                    message = await receive()
            except TimeoutError:
                # HTTPException, because FastAPI turns any other error while reading a body into a 400.
                raise HTTPException(_TOO_SLOW_STATUS) from None
            waited_s += loop.time() - began
            received += len(message.get("body", b""))
            if received >= self._window_bytes:
                waited_s, received = 0.0, 0
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, timely, send)
