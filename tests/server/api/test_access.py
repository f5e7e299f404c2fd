"""Who may come without a key: this machine, by its own name, and no web page from elsewhere."""

import asyncio
from collections.abc import Callable

import pytest
from api_parts import client_of
from fastapi import FastAPI

from server.commands.exposure import describe_access
from server.identity.api_keys import create_key
from server.settings import Settings
from server.storage.slide_store import open_store

WHO = "/v1/slides"


async def status_of(app: FastAPI, key: str | None = None, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client_of(app, key, **named) as client:
        return (await client.get(WHO)).status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000"])
async def test_this_machine_needs_no_key(app: FastAPI, host: str) -> None:
    assert await status_of(app, host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", "", "evil@localhost.evil", "192.0.2.1"],
)
async def test_a_name_that_was_rebound_to_this_machine_needs_a_key(app: FastAPI, host: str) -> None:
    assert await status_of(app, host=host) == 401


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[", "file://", "localhost"]
)
async def test_a_page_from_elsewhere_needs_a_key(app: FastAPI, origin: str) -> None:
    assert await status_of(app, origin=origin) == 401


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8000"])
async def test_a_page_from_this_machine_needs_none(app: FastAPI, origin: str) -> None:
    assert await status_of(app, origin=origin) == 200


@pytest.mark.parametrize("changes", [{"host": "0.0.0.0"}, {"host": "192.0.2.1"}, {"require_key": True}])
async def test_elsewhere_a_key_is_needed(make_app: Callable[..., FastAPI], changes: dict[str, object]) -> None:
    app = make_app(**changes)
    secret = await create_key(app.state.parts.store, "a")

    assert await status_of(app) == 401
    assert await status_of(app, "sk-anything") == 401
    assert await status_of(app, secret) == 200


async def test_the_placeholder_key_of_an_openai_client_is_as_good_as_none(app: FastAPI) -> None:
    assert await status_of(app, "EMPTY") == 200
    assert await status_of(app, "EMPTY", origin="https://evil.example") == 401


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "x-forwarded-anything"])
async def test_what_a_proxy_passed_on_needs_a_key(make_app: Callable[..., FastAPI], header: str) -> None:
    app = make_app()
    async with client_of(app, **{header: "127.0.0.1"}) as client:
        refused = await client.get(WHO)
    assert refused.status_code == 401
    assert refused.json()["detail"].startswith("Requests through a proxy need a key. Send ")
    assert await status_of(app, "EMPTY", **{header: "x"}) == 401
    assert await status_of(make_app(keep_keyless=True), **{header: "x"}) == 200


async def test_once_a_key_exists_one_is_needed_from_the_next_request_on(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    assert await status_of(app) == 200
    secret = await create_key(app.state.parts.store, "a")

    async with client_of(app) as client:
        refused = await client.get(WHO)
    assert refused.status_code == 401
    assert refused.json()["detail"].startswith("This server has API keys, so every request needs one. Send ")
    assert await status_of(app, "EMPTY") == 401
    assert await status_of(app, secret) == 200
    open_app = make_app(keep_keyless=True)
    assert await status_of(open_app) == 200
    assert await status_of(open_app, origin="https://evil.example") == 401


@pytest.mark.parametrize(
    ("changes", "keyless"),
    [({}, True), ({"require_key": True}, False), ({"host": "192.0.2.1"}, False), ({"keep_keyless": True}, True)],
)
def test_up_says_whether_a_key_is_needed(settings: Settings, changes: dict[str, object], keyless: bool) -> None:
    changed = settings.model_copy(update=changes)
    assert describe_access(changed) == ("this machine needs no key" if keyless else "clients need an API key")
    asyncio.run(create_key(open_store(settings), "a"))
    still = keyless and "keep_keyless" in changes
    assert describe_access(changed) == ("this machine needs no key" if still else "clients need an API key")


async def test_a_key_of_ours_that_is_not_valid_is_never_ignored(app: FastAPI) -> None:
    assert await status_of(app, "eyp_" + "a" * 43) == 401


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer  ", "Basic dXNlcjpwYXNz", "eyp_x"])
async def test_other_headers_are_no_key(make_app: Callable[..., FastAPI], header: str) -> None:
    assert await status_of(make_app(require_key=True), authorization=header) == 401


async def test_a_refusal_says_how_to_sign_in(make_app: Callable[..., FastAPI]) -> None:
    async with client_of(make_app(require_key=True)) as client:
        refused = await client.get("/v1/slides")

    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "unauthorized"


@pytest.mark.parametrize("path", ["/livez", "/metrics"])
async def test_health_needs_no_key(make_app: Callable[..., FastAPI], path: str) -> None:
    async with client_of(make_app(require_key=True, host="0.0.0.0")) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_the_document_needs_a_key_where_anything_does(make_app: Callable[..., FastAPI], path: str) -> None:
    async with client_of(make_app(host="0.0.0.0")) as client:
        assert (await client.get(path)).status_code == 401
    async with client_of(make_app()) as client:
        assert (await client.get(path)).status_code == 200
