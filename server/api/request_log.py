"""One log line and one count per request, by route template: paths hold ids, queries may hold more."""

import re
import time
import uuid

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from server.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)
REQUEST_ID_HEADER = "x-request-id"
# nginx's number for a client that closed the connection; nobody reads it but the metrics.
CLIENT_CLOSED = 499
_STATE = "request_id"
# What a client may name its request: a UUID, or hex digits as traces have. A freer form would bring names of patients
# into the log.
_SAID = re.compile(rb"[0-9a-f]{16,64}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# HTTP lets a client invent methods; a label must not.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every second or so by load balancers and Prometheus.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})
# A viewer asks for hundreds a minute: logged when they fail. Clients hang up on what has left their view.
_TILES = "/v1/slides/{slide_id}/tiles/{level}/{column}_{row}.jpg"


class RequestLog:
    """ASGI middleware: counts, logs, and answers with `X-Request-Id`, the client's own where it sent one. Every line
    that is logged for the request has it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _said_id(scope) or uuid.uuid4().hex[:16]
        scope.setdefault("state", {})[_STATE] = request_id
        status = CLIENT_CLOSED
        started = time.perf_counter()

        async def with_request_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((REQUEST_ID_HEADER.encode(), request_id.encode()))
            await send(message)

        try:
            with bound_contextvars(request_id=request_id):
                await self._app(scope, receive, with_request_id)
        except Exception:
            if status == CLIENT_CLOSED:
                status = 500  # what the framework answers for us, further out
            raise
        finally:
            self._note(scope, status, request_id, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, request_id: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        is_usual_tile = route == _TILES and (status < 400 or status == CLIENT_CLOSED)
        if route not in _QUIET and not is_usual_tile:
            log.info(
                "request",
                route=route,
                method=method,
                status=status,
                duration_ms=round(seconds * 1000, 1),
                request_id=request_id,
            )


def _said_id(scope: Scope) -> str | None:
    """What the client calls the request, if it has the form of an id."""
    said = [value for name, value in scope["headers"] if name == REQUEST_ID_HEADER.encode()]
    return said[0].decode() if len(said) == 1 and _SAID.fullmatch(said[0]) else None


def request_id_of(scope: Scope) -> str:
    """The id of this request."""
    return str(scope.get("state", {}).get(_STATE, "none"))
