"""Traces: one from a request to the job that it queued and to vLLM, and nothing of a slide in it."""

from collections.abc import Iterator

import httpx
import pytest
from api_parts import encode_job, stored_slide
from fakes import FakeEncode, FakeVllm
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from server.api.parts import Parts
from server.encoding.jobs import TRACE
from server.telemetry.tracing import configure_tracing, span, trace_headers, use_provider

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """The provider of a process is set once, for good."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    return next(span for span in spans.get_finished_spans() if span.name == name)


def hex_trace(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


async def test_a_question_is_one_trace_that_vllm_goes_on(
    client: httpx.AsyncClient, parts: Parts, vllm: FakeVllm, spans: InMemorySpanExporter
) -> None:
    slide = await stored_slide(parts, ready=True)
    headers = {"traceparent": PARENT}
    await client.post(f"/v1/slides/{slide.id}/questions", json={"question": "Why?"}, headers=headers)

    request = named(spans, "POST /v1/slides/{slide_id}/questions")
    assert hex_trace(request) == TRACE_ID
    assert hex_trace(named(spans, "find embedding")) == TRACE_ID
    assert [event.name for event in request.events] == ["first token"]
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert vllm.requests[0].headers["traceparent"].split("-")[1] == TRACE_ID


async def test_the_job_carries_the_trace_of_who_queued_it(
    client: httpx.AsyncClient, parts: Parts, spans: InMemorySpanExporter
) -> None:
    slide = await stored_slide(parts)
    await client.post(f"/v1/slides/{slide.id}/encode", json={}, headers={"traceparent": PARENT})

    job = await parts.jobs.find(slide)
    assert job is not None
    assert job.meta[TRACE]["traceparent"].split("-")[1] == TRACE_ID


async def test_the_encode_goes_on_with_the_trace_stage_by_stage(
    client: httpx.AsyncClient, parts: Parts, spans: InMemorySpanExporter
) -> None:
    slide = await stored_slide(parts, whole=True)
    await client.post(f"/v1/slides/{slide.id}/encode", json={}, headers={"traceparent": PARENT})
    job = await parts.jobs.find(slide)
    assert job is not None

    assert await encode_job(parts, FakeEncode(slide.encoder_id)).run({"job": job}, **(job.kwargs or {})) == "ready"

    assert hex_trace(named(spans, "encode slide")) == TRACE_ID
    assert hex_trace(named(spans, "encode_tiles")) == TRACE_ID


async def test_no_slide_tenant_or_text_is_in_a_span(
    client: httpx.AsyncClient, parts: Parts, spans: InMemorySpanExporter
) -> None:
    slide = await stored_slide(parts, "patient", ready=True)
    await client.post(f"/v1/slides/{slide.id}/questions", json={"question": "Why does Ms Miller cough?"})

    text = "".join(span.to_json() for span in spans.get_finished_spans())
    assert not any(secret in text for secret in (slide.id, "patient", "Miller", '"default"'))


async def test_health_checks_are_not_traced(client: httpx.AsyncClient, spans: InMemorySpanExporter) -> None:
    await client.get("/livez")
    assert [span.name for span in spans.get_finished_spans()] == []


def test_a_span_goes_on_elsewhere(spans: InMemorySpanExporter) -> None:
    with span("here"):
        carried = trace_headers()
    with span("there", carried, tiles=3):
        pass

    assert hex_trace(named(spans, "here")) == hex_trace(named(spans, "there"))
    assert named(spans, "there").attributes == {"tiles": 3}


def test_the_text_of_an_error_is_left_out(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError), span("fails"):
        raise ValueError("/slides/Miller.svs")
    assert "Miller" not in named(spans, "fails").to_json()


def test_without_a_collector_nothing_is_set_up(exporter: InMemorySpanExporter) -> None:
    before = trace.get_tracer_provider()
    configure_tracing("eyepiece-test", "")
    assert trace.get_tracer_provider() is before
