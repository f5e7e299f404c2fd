"""Large bodies: who has no key is not read, and nothing is parsed whose size in values is out of bounds."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import reduce
from typing import Any

import httpx
import pytest
from api_parts import client_of, problem_of
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from server.api.request_bodies import ValueCount
from server.api.routes import health, page
from server.api.routes.all_routers import ROUTERS
from server.api.routes.keyed_route import KeyedRoute

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
SLIDE = "a" * 64
CONVERSATION = "c" * 32
UPLOAD = "7" * 64
STUDY = "1.2"
# What a path of the document stands for in KEYED_BODIES.
NAMED = {
    "{slide_id}": SLIDE,
    "{conversation_id}": CONVERSATION,
    "{turn}": "1",
    "{upload_id}": UPLOAD,
    "{endpoint}": "lis",
    "{study_uid}": STUDY,
}


class CountedBody:
    """4 MB in pieces, and how many of them were taken."""

    def __init__(self, begin: bytes, repeated: bytes, end: bytes = b"") -> None:
        self._begin, self._repeated, self._end = begin, repeated, end
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._begin
        piece = self._repeated * (2**16 // len(self._repeated))
        for _ in range(62):
            self.taken += 1
            yield piece
        yield self._end


def chat(content: bytes) -> bytes:
    return b'{"model": "demo", "messages": [{"role": "user", "content": ' + content


BODIES = {
    "numbers as content": (CHAT, chat(b"[0"), b",0"),
    "content parts": (CHAT, chat(b'[{"type":"text","text":""}'), b',{"type":"text","text":""}'),
    "messages": (CHAT, b'{"messages":[{}', b',{"role":"user"}'),
    "stops": (CHAT, b'{"stop":[""', b',"x"'),
    "numbers of many digits": (CHAT, chat(b"[1"), b"," + b"9" * 4_000),
    "one number": (f"/v1/slides/{SLIDE}/questions", b'{"max_tokens": 1', b"9"),
    "unknown keys": (CHAT, b'{"a":0', b',"b":0'),
    "nested": (CHAT, chat(b"["), b"["),
    "nested objects": (CHAT, chat(b'{"a":'), b'{"a":'),
    "behind escaped quotes": (CHAT, chat(b'["\\\\\\""'), b',"\\"\\\\"'),
    "unknown keys of a question": (f"/v1/slides/{SLIDE}/questions", b'{"a":0', b',"b":0'),
    "unknown keys of an encode": (f"/v1/slides/{SLIDE}/encode", b'{"a":0', b',"b":0'),
}


@pytest.mark.parametrize("name", BODIES)
async def test_too_many_values_are_refused_before_the_rest_is_read(client: httpx.AsyncClient, name: str) -> None:
    path, begin, repeated = BODIES[name]
    body = CountedBody(begin, repeated)

    refused = await client.post(path, content=body, headers=JSON)

    assert refused.status_code == 422
    assert len(refused.content) < 500
    assert body.taken < 5


async def test_a_long_chat_of_text_is_read(client: httpx.AsyncClient) -> None:
    body = CountedBody(chat(b'"'), b",[{x", b'"}]}')

    refused = await client.post(CHAT, content=body, headers=JSON)

    assert body.taken == 62
    assert "names no slide" in refused.json()["error"]["message"]


async def test_another_request_is_answered_before_a_large_body(client: httpx.AsyncClient) -> None:
    """A body that has come in one piece is counted in many."""
    body = chat(b'"') + b",[{x" * 2**20
    first = asyncio.create_task(client.post(CHAT, content=body[: 4 * 2**20], headers=JSON))
    answered: list[str] = []
    first.add_done_callback(lambda _: answered.append("large"))

    assert (await client.get("/livez")).status_code == 200
    answered.append("small")
    await first

    assert answered == ["small", "large"]


async def test_another_encoding_of_json_is_refused(client: httpx.AsyncClient) -> None:
    """Its quotes would hide values from the count."""
    body = json.dumps({"question": "Why?"}).encode("utf-16-le")
    refused = await client.post(f"/v1/slides/{SLIDE}/questions", content=body, headers=JSON)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "UTF-8" in refused.json()["detail"]


async def test_an_announced_size_is_refused_without_reading(make_app: Callable[..., FastAPI]) -> None:
    body = CountedBody(b"", b"x")
    async with client_of(make_app()) as client:
        headers = JSON | {"Content-Length": str(5 * 2**20)}
        refused = await client.post(CHAT, content=body, headers=headers)
    assert refused.status_code == 413
    assert refused.headers["Connection"] == "close"
    assert body.taken == 0


@pytest.mark.parametrize("length", ["9" * 5_000, "0" * 5_000 + "99999999"])
async def test_an_announced_size_may_have_thousands_of_digits(client: httpx.AsyncClient, length: str) -> None:
    body = CountedBody(chat(b"["), b" ")

    response = await client.post(CHAT, content=body, headers=JSON | {"Content-Length": length})

    assert response.status_code == 413
    assert body.taken == 0


async def test_all_bodies_together_are_bounded(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(max_body_bytes=2**20, max_concurrent_questions=1)
    held = asyncio.Event()
    go_on = asyncio.Event()

    async with client_of(app) as client:
        # httpx's transport asks for the next piece only when the server does.
        body = chat(b'"') + b"x" * (2**20 - 200)

        async def first_body() -> AsyncIterator[bytes]:
            yield body
            held.set()
            await go_on.wait()

        first = asyncio.create_task(client.post(CHAT, content=first_body(), headers=JSON))
        await held.wait()
        refused = await client.post(CHAT, content=body, headers=JSON)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"]
        go_on.set()
        await first
        assert (await client.post(CHAT, content=body, headers=JSON)).status_code == 422


KEYED_BODIES: list[tuple[str, str, str]] = [
    ("POST", CHAT, "application/json"),
    ("POST", f"/v1/slides/{SLIDE}/questions", "application/json"),
    ("POST", f"/v1/slides/{SLIDE}/encode", "text/plain"),
    ("PATCH", f"/v1/slides/{SLIDE}", "application/json"),
    ("POST", "/v1/cases/questions", "application/json"),
    ("POST", f"/v1/slides/{SLIDE}/reports", "application/json"),
    ("POST", "/v1/imports", "application/json"),
    ("POST", f"/v1/slides/{SLIDE}/regions", "application/json"),
    ("POST", f"/v1/slides/{SLIDE}/evidence", "application/json"),
    ("POST", "/v1/webhooks/lis/replay", "application/json"),
    ("POST", "/v1/slides", "multipart/form-data; boundary=x"),
    ("POST", "/v1/slides", "text/plain"),
    ("POST", "/v1/uploads", "application/offset+octet-stream"),
    ("PATCH", f"/v1/uploads/{UPLOAD}", "application/offset+octet-stream"),
    ("POST", f"/v1/uploads/{UPLOAD}", "application/offset+octet-stream"),
    ("POST", "/v1/uploads/slides", "application/json"),
    ("POST", "/v1/dicomweb/studies", "multipart/related; boundary=x"),
    ("POST", f"/v1/dicomweb/studies/{STUDY}", "multipart/related; boundary=x"),
    ("PUT", f"/v1/slides/{SLIDE}/features", "multipart/form-data; boundary=x"),
    ("PUT", f"/v1/conversations/{CONVERSATION}/turns/1/feedback", "application/json"),
]


@pytest.mark.parametrize(("method", "path", "content_type"), KEYED_BODIES)
async def test_a_body_without_a_key_is_not_read(
    make_app: Callable[..., FastAPI], method: str, path: str, content_type: str
) -> None:
    body = CountedBody(b"{", b"x")
    async with client_of(make_app(require_key=True)) as client:
        refused = await client.request(method, path, content=body, headers={"Content-Type": content_type})
    assert refused.status_code == 401
    assert refused.headers["Connection"] == "close"
    assert body.taken == 0


def test_every_route_with_a_body_asks_for_the_key_first(app: FastAPI) -> None:
    document: dict[str, Any] = app.openapi()
    with_body = {
        (method.upper(), reduce(lambda filled, name: filled.replace(name, NAMED[name]), NAMED, path))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
    }
    assert with_body == {(method, path) for method, path, _ in KEYED_BODIES}


def test_every_route_of_a_tenant_asks_for_the_key_first() -> None:
    for router in ROUTERS:
        if router not in (health.router, page.router):  # they hold nothing of anybody
            assert all(isinstance(route, KeyedRoute) for route in router.routes)


async def test_an_unknown_query_parameter_is_named(client: httpx.AsyncClient) -> None:
    refused = await client.get("/v1/slides?limits=5")
    assert problem_of(refused, 422) == "invalid_request"
    assert (
        refused.json()["detail"]
        == "This address has no query parameter 'limits'; it takes accession, body_site, case, cursor, "
        "id, label, limit, name, patient_ref, stain, status."
    )
    assert problem_of(await client.get(f"/v1/slides/{SLIDE}?x=1"), 422) == "invalid_request"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_values_are_counted_wherever_the_text_is_cut(value: Any, size: int, plain: bool) -> None:
    text = json.dumps(value, ensure_ascii=plain).encode()
    count = ValueCount()
    for start in range(0, len(text), size):
        count.add(text[start : start + size])
    assert count.values == commas_and_brackets(value)


def commas_and_brackets(value: Any) -> int:
    if isinstance(value, list | dict):
        members = value.values() if isinstance(value, dict) else value
        return 1 + max(len(value) - 1, 0) + sum(map(commas_and_brackets, members))
    return 0
