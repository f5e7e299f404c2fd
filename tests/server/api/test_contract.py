"""The OpenAPI document says what it takes to write a client, and tests notice an answer that it does not tell of."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from api_parts import client_of, problem_of
from contract import Contract, contract_of
from fastapi import FastAPI

from server.errors import HTTP_STATUS

SLIDE_PATH = f"/v1/slides/{'5e' * 32}"
# Told to clients in the `error` of a slide or an import, or never, or belong to addresses that are none.
NOT_OF_A_ROUTE = {
    "archive_answer_unusable",
    "archive_refused",
    "archive_unavailable",
    "cancelled",
    "dependency_unavailable",
    "missing_mpp",
    "model_unavailable",
    "no_tissue",
    "resolution_too_low",
    "series_differs",
}


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def parameters(document: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    """An operation's, wherever they are described."""
    known = document["components"]["parameters"]
    return [known[it["$ref"].split("/")[-1]] if "$ref" in it else it for it in operation.get("parameters", ())]


def test_every_operation_has_a_name_for_code_and_words_for_people(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]

    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", name)] == []
    for where, operation in operations(document):
        assert operation["description"].endswith((".", ")")), where
        assert all(response["description"] for response in operation["responses"].values()), where
        assert len(operation["tags"]) == 1, where


def test_every_parameter_is_described_and_has_an_example_or_choices(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for parameter in parameters(document, operation):
            assert len(parameter["description"]) > 20, (where, parameter["name"])
            schema = json.dumps(parameter["schema"])
            assert "examples" in schema or "#/components/schemas/Capability" in schema, (where, parameter["name"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))

    assert len(references) > 100
    for reference in references:
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_bounds_of_whole_numbers_are_whole_and_those_of_the_server(app: FastAPI) -> None:
    """As floating-point numbers, 2**63 - 1 and 2**63 are the same."""
    seed = app.openapi()["components"]["schemas"]["QuestionRequest"]["properties"]["seed"]["anyOf"][0]

    assert (seed["minimum"], seed["maximum"]) == (-(2**63), 2**63 - 1)
    assert not re.search(r'"(minimum|maximum)": [0-9.-]*e', json.dumps(app.openapi()))


def test_no_shape_is_left_without_a_use(document: dict[str, Any]) -> None:
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))

    assert used == set(document["components"]["schemas"])


def test_every_code_of_the_table_is_an_error_of_some_route(document: dict[str, Any]) -> None:
    told = {
        code
        for _, operation in operations(document)
        for status, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for code in content.get("examples", {})
        if str(HTTP_STATUS[code]) == status
    }

    assert told == set(HTTP_STATUS) - NOT_OF_A_ROUTE


@pytest.mark.parametrize("require_key", [True, False])
def test_keys_are_asked_for_where_they_are_needed(make_app: Callable[..., FastAPI], require_key: bool) -> None:
    document = make_app(require_key=require_key).openapi()

    security = {where: operation["security"] for where, operation in operations(document)}
    assert security["GET /livez"] == []
    assert security["GET /v1/slides"] == [{"apiKey": ["slides:read"]}] + ([] if require_key else [{}])
    assert security["GET /v1/models"] == [{"apiKey": []}] + ([] if require_key else [{}])
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


async def test_both_versions_differ_in_what_they_say_of_streams_alone(client: httpx.AsyncClient) -> None:
    older = (await client.get("/openapi.json")).json()
    newer = (await client.get("/openapi.json?version=3.2")).json()

    assert (older["openapi"], newer["openapi"]) == ("3.1.1", "3.2.0")
    assert json.dumps(newer).count('"itemSchema"') == 8
    assert '"itemSchema"' not in json.dumps(older)
    assert older["components"] == newer["components"]
    refused = await client.get("/openapi.json?version=2.0")
    assert problem_of(refused, 422) == "invalid_request"


@pytest.fixture
def contract(app: FastAPI) -> Contract:
    return contract_of(app)


def answered(status: int, content: Any, media_type: str = "application/json", **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=body, headers={"Content-Type": media_type, **named})


PROBLEM = {"type": "urn:x", "title": "x", "status": 404, "code": "not_found", "detail": "x"}
USAGE = {
    "slides_running": 0,
    "slides_waiting": 0,
    "slides_ahead": 0,
    "stored_bytes": 1,
    "stored_bytes_quota": None,
    "encodings_today": 0,
    "encodings_per_day_quota": None,
}
EVENTS = "text/event-stream"


@pytest.mark.parametrize(
    ("asked", "response"),
    [
        ("GET /v1/usage", answered(200, USAGE)),
        (f"GET {SLIDE_PATH}", answered(404, PROBLEM, "application/problem+json")),
        (f"GET {SLIDE_PATH}/events", answered(200, b'event: ready\ndata: {}\nid: 1-0\n\n: ping\n\n', EVENTS)),
        (f"GET {SLIDE_PATH}/events", answered(200, b'event: progress\ndata: {"sta', EVENTS)),
        ("POST /v1/chat/completions", answered(200, b"data: [DONE]\n\n", EVENTS)),
        ("GET /nowhere", answered(404, PROBLEM, "application/problem+json")),
    ],
)  # fmt: skip
def test_what_the_document_tells_of_passes(contract: Contract, asked: str, response: httpx.Response) -> None:
    check(contract, asked, response)


@pytest.mark.parametrize(
    ("asked", "response", "told"),
    [
        ("GET /v1/usage", answered(418, USAGE), "not documented"),
        ("GET /v1/usage", answered(200, USAGE, "text/plain"), "is text/plain, documented is"),
        ("GET /v1/usage", answered(200, USAGE | {"more": 1}), "'more' was unexpected"),
        ("GET /v1/usage", answered(200, {}), "is a required property"),
        ("GET /v1/usage", answered(200, USAGE, Retry_After="5"), "the header Retry-After is not documented"),
        ("GET /v1/usage", answered(404, PROBLEM, "application/problem+json"), "not documented"),
        (
            f"GET {SLIDE_PATH}",
            answered(404, PROBLEM | {"code": "no_tissue"}, "application/problem+json"),
            "the code no_tissue is not documented",
        ),
        (f"DELETE {SLIDE_PATH}", answered(204, {}), "has a body"),
        (f"GET {SLIDE_PATH}/thumbnail", answered(200, b"\x89PNG", "image/png"), "the header ETag is missing"),
        (
            f"GET {SLIDE_PATH}/thumbnail",
            answered(429, PROBLEM, "application/problem+json", Retry_After="soon"),
            'Retry-After is not what is documented: "soon"',
        ),
        (f"GET {SLIDE_PATH}/events", answered(200, b"event: redo\ndata: {}\n\n", EVENTS), "no documented event"),
        (
            f"GET {SLIDE_PATH}/events",
            answered(200, b'event: progress\ndata: {"stage": "tile", "done": -1, "total": 1}\n\n', EVENTS),
            "less than the minimum",
        ),
        ("POST /v1/chat/completions", answered(200, b'data: {"id": "x"}\n\n', EVENTS), "event"),
        ("PATCH /v1/usage", answered(200, USAGE), "no such operation"),
        ("GET /nowhere", answered(404, b"no", "text/plain"), "is text/plain"),
    ],
)
def test_what_it_does_not_tell_of_fails(contract: Contract, asked: str, response: httpx.Response, told: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(told)):
        check(contract, asked, response)


def check(contract: Contract, asked: str, response: httpx.Response) -> None:
    method, path = asked.split(" ")
    response.request = httpx.Request(method, f"http://127.0.0.1{path}")
    contract.check(response.request, response, response.content)


async def test_an_answer_that_is_not_documented_fails_the_test_that_got_it(app: FastAPI, contract: Contract) -> None:
    @app.get("/v1/usage/more")
    async def more() -> None: ...

    async with client_of(app) as client:
        with pytest.raises(AssertionError, match="no such operation"):
            await client.get("/v1/usage/more")
