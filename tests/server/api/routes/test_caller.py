"""/v1/caller: what a credential allows, said to whoever holds it."""

from collections.abc import Callable

import httpx
from api_parts import client_of
from fastapi import FastAPI

from server.identity.access_scopes import SCOPES
from server.identity.api_keys import create_key


async def test_a_key_is_told_its_tenant_and_its_scopes_and_nothing_of_whose_it_is(
    make_app: Callable[..., FastAPI],
) -> None:
    app = make_app(require_key=True)
    key = await create_key(app.state.parts.store, "pathology", scopes=("reports", "slides:read"))

    async with client_of(app, key) as client:
        told = (await client.get("/v1/caller")).json()

    assert told == {"object": "caller", "tenant": "pathology", "scopes": ["slides:read", "reports"]}


async def test_the_keyboard_of_this_machine_has_all_scopes(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/caller")).json()

    assert (told["tenant"], told["scopes"]) == ("default", list(SCOPES))
