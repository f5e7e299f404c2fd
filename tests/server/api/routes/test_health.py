"""Readiness, metrics, and what every response and every log line of a request have in common."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_parts import client_of, stored_slide
from fakes import FakeVllm
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.api.parts import Parts
from server.machine.redis_server import free_loopback_port
from server.upkeep.readiness import Readiness


async def test_the_process_is_alive_before_it_is_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json() == {"status": "alive"}
    assert (await client.get("/readyz")).status_code == 503


async def test_it_is_ready_once_everything_answers_and_a_question_was_answered(
    app: FastAPI, client: httpx.AsyncClient, vllm: FakeVllm
) -> None:
    readiness: Readiness = app.state.readiness

    await readiness.look()
    await readiness.look()

    report = await client.get("/readyz")
    assert report.status_code == 200
    assert report.json() == {
        "status": "ready",
        "checks": {"redis": "ok", "store": "ok", "language_model": "ok"},
        "models": {"demo": "ok"},
        "capabilities": {"slides": True, "uploads": True, "questions": True},
        "workers_ready": 0,
    }
    assert len(vllm.requests) == 1


async def test_a_model_that_does_not_see_the_slide_is_not_ready(
    app: FastAPI, client: httpx.AsyncClient, vllm: FakeVllm
) -> None:
    vllm.answer_with(b"data: garbage\n\n")

    await app.state.readiness.look()

    assert (await client.get("/readyz")).json()["checks"]["language_model"] == "unavailable"
    assert all(stream.closed.is_set() for stream in vllm.streams)


async def test_it_is_not_ready_without_redis_or_while_it_drains(
    make_app: Callable[..., FastAPI], app: FastAPI, client: httpx.AsyncClient
) -> None:
    away = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))
    await away.state.readiness.look()
    async with client_of(away) as other:
        report = await other.get("/readyz")
    await app.state.readiness.look()
    app.state.parts.drain.begun = True

    assert (report.status_code, report.json()["checks"]["redis"]) == (503, "unavailable")
    drained = await client.get("/readyz")
    assert (drained.status_code, drained.json()["status"]) == (503, "draining")


async def test_every_response_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    answers = [await client.get(path) for path in ("/livez", "/nowhere", "/v1/slides", "/v1/slides/x")]

    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


async def test_a_bug_is_answered_counted_and_logged_under_one_id(parts: Parts, app: FastAPI) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("Doe^Jane")

    app.add_api_route("/broken", broken)
    with capture_logs() as logged:
        async with client_of(app) as client:
            answer = await client.get("/broken")

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "Doe" not in answer.text
    (entry,) = [line for line in logged if line["event"] == "unexpected_error"]
    assert answer.headers["X-Request-Id"] == entry["request_id"]
    assert requests_counted(parts, route="/broken", method="GET", status="500") == 1


def requests_counted(parts: Parts, **labels: str) -> float:
    return parts.metrics.registry.get_sample_value("eyepiece_http_requests_total", labels) or 0.0


async def test_no_path_query_or_invented_method_becomes_a_label(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)
    for path in (f"/v1/slides/{record.id}", "/Doe", "/v1/slides/Doe", "/v1/Doe?name=Doe", "/livez"):
        await client.get(path)
    for method in ("DOE", "PROPFIND", "X" * 1000):
        await client.request(method, "/v1/slides")

    page = (await client.get("/metrics")).text

    assert "Doe" not in page
    assert "DOE" not in page
    assert record.id not in page
    assert requests_counted(parts, route="/v1/slides/{slide_id}", method="GET", status="200") == 1
    assert requests_counted(parts, route="none", method="GET", status="404") == 2
    assert requests_counted(parts, route="/v1/slides", method="other", status="405") == 3


async def test_a_request_is_logged_by_its_route_only(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)
    with capture_logs() as logged:
        await client.get(f"/v1/slides/{record.id}?name=Doe")
        await client.get("/livez")

    (line,) = [entry for entry in logged if entry["event"] == "request"]
    assert (line["route"], line["status"]) == ("/v1/slides/{slide_id}", 422)
    assert record.id not in str(line)


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/uploads/x", "/v1/slides/x/y/z", "/v1//slides"])
async def test_an_address_that_is_none_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


async def test_the_document_describes_every_route_without_a_warning(client: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()

    assert "/v1/slides/{slide_id}/questions" in document["paths"]
    assert "multipart/form-data" in str(document["paths"]["/v1/slides"]["post"])
