"""Bounds of request bodies."""

from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: request bodies beyond `max_bytes` are refused while they arrive, uploads excepted."""

    def __init__(self, app: ASGIApp, max_bytes: int, is_upload: Callable[[str, str], bool]) -> None:
        """`is_upload` says by method and path which requests limit themselves."""
        self._app = app
        self._max_bytes = max_bytes
        self._is_upload = is_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the body's bytes on their way in."""
        if scope["type"] != "http" or self._is_upload(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                # HTTPException, because FastAPI turns any other error while reading a body into a 400.
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)
