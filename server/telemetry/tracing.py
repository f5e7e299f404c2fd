"""Traces across API → queue → worker → vLLM, for those who install `eyepiece[traces]` and name a collector.

A request's trace goes on in the job that it queues (SAQ's `meta`) and in vLLM (header `traceparent`; `eyepiece llm`
has it send its part to the same collector). Attributes are routes, stages and counts: no tenant, no slide, no text.
Without the extra, or without a collector, everything here does nothing, and costs nothing: OpenTelemetry's own
spans that go nowhere take a third of a millisecond of a question.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import EyepieceError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
with suppress(ImportError):
    from opentelemetry import propagate, trace

_TRACER = "eyepiece"
_is_on = False
# Asked every second or so; nobody wants to see them.
_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


class TracesUnavailable(EyepieceError):
    """Traces are wanted and their packages are not there."""

    code = "internal_error"


def configure_tracing(service: str, collector_url: str) -> None:
    """Send this process' spans to an OTLP/HTTP collector, e.g. http://collector:4318; "" leaves tracing off.

    Raises:
        TracesUnavailable: the extra is not installed.
    """
    if not collector_url:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise TracesUnavailable("EYEPIECE_TRACES_URL needs `pip install 'eyepiece[traces]'`.") from error
    export_spans(service, OTLPSpanExporter(endpoint=f"{collector_url.rstrip('/')}/v1/traces"))


def export_spans(service: str, exporter: "SpanExporter") -> None:
    """Batch this process' spans to an exporter; the last ones are sent when the process ends."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": service, "service.version": version("eyepiece")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    use_provider(provider)


def use_provider(provider: "TracerProvider") -> None:
    """From here on there are spans, and they are the provider's."""
    global _is_on
    trace.set_tracer_provider(provider)
    _is_on = True


@contextmanager
def span(name: str, parent: Mapping[str, str] | None = None, **attributes: str | int) -> Iterator[None]:
    """A span around the block, under the current one or under `parent`, what `trace_headers` gave elsewhere.

    Never around a `yield` of an async generator, whose steps may run in different tasks.
    """
    if not _is_on:
        yield
        return
    context = propagate.extract(dict(parent)) if parent else None
    tracer = trace.get_tracer(_TRACER)
    # The text of an exception, which OpenTelemetry would keep, may quote a path or a question.
    with tracer.start_as_current_span(
        name, context, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except Exception as error:
            current.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise


def past_span(name: str, seconds: float) -> None:
    """A span that ends now and began `seconds` ago, under the current one."""
    if _is_on:
        began_ns = time.time_ns() - round(seconds * 1e9)
        trace.get_tracer(_TRACER).start_span(name, start_time=began_ns).end()


def mark(event: str) -> None:
    """A point in time on the current span."""
    if _is_on:
        trace.get_current_span().add_event(event)


def trace_headers() -> dict[str, str]:
    """What carries the current trace elsewhere; empty when there is none."""
    headers: dict[str, str] = {}
    if _is_on:
        propagate.inject(headers)
    return headers


class TraceRequests:
    """ASGI middleware: one span a request, from its first byte to the last of its answer, named by route template."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under a span."""
        if not _is_on or scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        with span("request", _trace_of(scope)):
            await self._app(scope, receive, _noting(scope, send))


def _trace_of(scope: Scope) -> dict[str, str]:
    wanted = {b"traceparent", b"tracestate"}
    return {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in wanted}


def _noting(scope: Scope, send: Send) -> Send:
    current: Any = trace.get_current_span()

    async def with_status(message: Message) -> None:
        if message["type"] == "http.response.start":
            route = getattr(scope.get("route"), "path", "none")
            current.update_name(f"{scope['method']} {route}")
            current.set_attributes({"http.route": route, "http.response.status_code": message["status"]})
        await send(message)

    return with_status
