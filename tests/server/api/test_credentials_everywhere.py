"""Every route of the OpenAPI document × every scope × every kind of credential, keys and really signed tokens alike.

The routes and the scope that each needs come from the document; `EXPECTED` says them once more, so that a route that is
new, or needs something else, is decided here too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from api_parts import client_of, stored_slide
from fastapi import FastAPI
from oidc_provider import IdentityProvider, rsa_key, running_provider

from server.identity import api_keys
from server.identity.access_scopes import SCOPES
from server.identity.api_keys import create_key, revoke_key
from server.identity.oidc_provider import OidcProvider
from server.slides.slide_record import now

OPEN = {"GET /livez", "GET /readyz", "GET /metrics"}
READ, WRITE, ASK, REPORTS, ADMIN, ANY = "slides:read", "slides:write", "ask", "reports", "admin", None
SLIDE, TURN = "/v1/slides/{slide_id}", "/v1/conversations/{conversation_id}/turns/{turn}/feedback"
DICOM_STUDY, DICOM_SERIES = "/v1/dicomweb/studies/{study_uid}", "/v1/dicomweb/studies/{study_uid}/series/{series_uid}"
DICOM_INSTANCE = DICOM_SERIES + "/instances/{instance_uid}"
UPLOAD = "/v1/uploads/{upload_id}"
EXPECTED = {
    "GET /v1/slides": READ,
    f"GET {SLIDE}": READ,
    f"GET {SLIDE}/events": READ,
    f"GET {SLIDE}/features": READ,
    f"HEAD {SLIDE}/features": READ,
    f"GET {SLIDE}/levels": READ,
    f"HEAD {SLIDE}/levels": READ,
    f"GET {SLIDE}/places": READ,
    f"GET {SLIDE}/thumbnail": READ,
    f"HEAD {SLIDE}/thumbnail": READ,
    f"GET {SLIDE}/tiles.dzi": READ,
    f"GET {SLIDE}/tiles/{{level}}/{{column}}_{{row}}.jpg": READ,
    "GET /v1/usage": READ,
    "POST /v1/slides": WRITE,
    "POST /v1/dicomweb/studies": WRITE,
    "POST /v1/dicomweb/studies/{study_uid}": WRITE,
    "GET /v1/dicomweb/waiting": READ,
    "POST /v1/imports": WRITE,
    "GET /v1/imports": READ,
    "GET /v1/imports/{import_id}": READ,
    "GET /v1/imports/{import_id}/events": READ,
    "GET /v1/dicomweb/studies": READ,
    "GET /v1/dicomweb/series": READ,
    "GET /v1/dicomweb/instances": READ,
    f"GET {DICOM_STUDY}/series": READ,
    f"GET {DICOM_STUDY}/instances": READ,
    f"GET {DICOM_SERIES}/instances": READ,
    f"GET {DICOM_STUDY}": READ,
    f"GET {DICOM_STUDY}/metadata": READ,
    f"GET {DICOM_SERIES}": READ,
    f"GET {DICOM_SERIES}/metadata": READ,
    f"GET {DICOM_SERIES}/rendered": READ,
    f"GET {DICOM_SERIES}/thumbnail": READ,
    f"GET {DICOM_INSTANCE}": READ,
    f"GET {DICOM_INSTANCE}/metadata": READ,
    f"GET {DICOM_INSTANCE}/rendered": READ,
    f"GET {DICOM_INSTANCE}/thumbnail": READ,
    f"GET {DICOM_INSTANCE}/frames/{{frame_numbers}}": READ,
    "OPTIONS /v1/uploads": WRITE,
    "POST /v1/uploads": WRITE,
    "POST /v1/uploads/slides": WRITE,
    f"GET {UPLOAD}": READ,
    f"HEAD {UPLOAD}": WRITE,
    f"PATCH {UPLOAD}": WRITE,
    f"POST {UPLOAD}": WRITE,
    f"DELETE {UPLOAD}": WRITE,
    f"DELETE {SLIDE}": WRITE,
    f"PATCH {SLIDE}": WRITE,
    f"GET {SLIDE}/reports": REPORTS,
    f"POST {SLIDE}/reports": REPORTS,
    f"GET {SLIDE}/reports/{{number}}": REPORTS,
    f"DELETE {SLIDE}/reports/{{number}}": REPORTS,
    "GET /v1/cases": READ,
    "POST /v1/cases/questions": ASK,
    f"POST {SLIDE}/encode": WRITE,
    f"PUT {SLIDE}/features": WRITE,
    f"POST {SLIDE}/questions": ASK,
    f"POST {SLIDE}/evidence": ASK,
    f"POST {SLIDE}/regions": ASK,
    f"GET {SLIDE}/regions/{{region_id}}": ASK,
    "GET /v1/conversations": ASK,
    "GET /v1/conversations/{conversation_id}": ASK,
    "DELETE /v1/conversations/{conversation_id}": ASK,
    f"PUT {TURN}": ASK,
    f"GET {TURN}": ASK,
    f"DELETE {TURN}": ASK,
    "POST /v1/chat/completions": ASK,
    "GET /v1/feedback": ADMIN,
    "GET /v1/webhooks": ADMIN,
    "GET /v1/webhooks/{endpoint}/dead": ADMIN,
    "POST /v1/webhooks/{endpoint}/replay": ADMIN,
    "GET /v1/models": ANY,
    "GET /v1/models/{model}": ANY,
    "GET /v1/caller": ANY,
}
NAMED = {
    "conversation_id": "conv_" + "x" * 22,
    "region_id": "reg_" + "0c" * 16,
    "turn": 1,
    "number": 1,
    "model": "demo",
} | {
    "upload_id": "7a" * 32,
    "endpoint": "lis",
    "study_uid": "1.2",
    "series_uid": "1.2.3",
    "instance_uid": "1.2.3.4",
    "frame_numbers": "1",
    "import_id": "7a" * 16,
}


@dataclass(frozen=True)
class Hospital:
    """An app with an identity provider, a slide of tenant a, and credentials of many kinds."""

    app: FastAPI
    provider: IdentityProvider
    slide: str

    async def key(self, *scopes: str, tenant: str = "a") -> str:
        chosen = tuple(scope for scope in SCOPES if scope in scopes)
        return await create_key(self.app.state.parts.store, tenant, None, chosen)

    def token(self, *scopes: str, **changes: object) -> str:
        return self.provider.token(scope=" ".join(scopes), **changes)

    @property
    def operations(self) -> Iterator[tuple[str, str, str | None]]:
        """Method, address and scope of every operation behind a credential, from the document."""
        for path, item in self.app.openapi()["paths"].items():
            for method, operation in item.items():
                if operation["security"]:
                    scopes = operation["security"][0]["apiKey"]
                    address = path.format(slide_id=self.slide, level=0, column=0, row=0, **NAMED)
                    yield method.upper(), address, scopes[0] if scopes else None

    async def statuses(self, credential: str | None) -> dict[str, int]:
        """What every operation answers to this credential. Bodies are empty objects: who may in gets 404 or 422."""
        asked = list(self.operations)
        async with client_of(self.app, credential) as client:
            answers = [await self._ask(client, method, address) for method, address, _ in asked]
        return dict(zip([f"{method} {address}" for method, address, _ in asked], answers, strict=True))

    async def _ask(self, client: httpx.AsyncClient, method: str, address: str) -> int:
        body = None if method in ("GET", "HEAD", "DELETE") else {}
        async with asyncio.timeout(60):
            return (await client.request(method, address, json=body)).status_code


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
async def hospital(make_app: Callable[..., FastAPI], provider: IdentityProvider) -> AsyncIterator[Hospital]:
    described = (OidcProvider.model_validate(provider.settings()),)
    app = make_app(require_key=True, oidc_providers=described)
    record = await stored_slide(app.state.parts, "theirs", tenant="a", ready=True)
    yield Hospital(app, provider, record.id)
    await app.state.parts.credentials.aclose()


def test_the_document_says_what_each_route_needs(hospital: Hospital) -> None:
    said: dict[str, str | None] = {}
    for path, item in hospital.app.openapi()["paths"].items():
        for method, operation in item.items():
            ways_in = [next(iter(way.values())) for way in operation["security"]]
            assert ways_in in ([], [ways_in[0]] * 2) if ways_in else f"{method.upper()} {path}" in OPEN
            if ways_in:
                said[f"{method.upper()} {path}"] = ways_in[0][0] if ways_in[0] else None

    assert said == EXPECTED


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_each_scope_opens_its_routes_and_no_other(hospital: Hospital, kind: str) -> None:
    needed = {f"{method} {address}": scope for method, address, scope in hospital.operations}
    for scope in SCOPES:
        # Routes that would change the slide are last of all asked by who may: by then it is gone for nobody else.
        credential = await hospital.key(scope) if kind == "key" else hospital.token(scope)
        statuses = await hospital.statuses(credential)
        await stored_slide_again(hospital)
        refused = {where for where, status in statuses.items() if status == 403}
        assert refused == {where for where, wanted in needed.items() if wanted not in (None, scope)}, scope
        assert 401 not in statuses.values(), scope


async def stored_slide_again(hospital: Hospital) -> None:
    """`slides:write` has deleted it."""
    parts = hospital.app.state.parts
    if await parts.slides.find("a", hospital.slide) is None:
        await stored_slide(parts, "theirs", tenant="a", ready=True)


async def test_no_scope_at_all_opens_what_needs_none(hospital: Hospital) -> None:
    statuses = await hospital.statuses(hospital.token("openid"))

    opened = {where for where, status in statuses.items() if status != 403}
    assert opened == {"GET /v1/models", "GET /v1/models/demo", "GET /v1/caller"}
    async with client_of(hospital.app, hospital.token("openid")) as client:
        refused = await client.get("/v1/slides")
    assert refused.json()["code"] == "insufficient_scope"
    assert "`slides:read`" in refused.json()["detail"]
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="slides:read"'


async def test_no_route_takes_a_credential_that_is_not_valid(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_REMEMBERED_S", 0.0)
    store = hospital.app.state.parts.store
    revoked = await hospital.key(*SCOPES)
    async with client_of(hospital.app, revoked) as client:
        assert (await client.get("/v1/slides")).status_code == 200
    await revoke_key(store, revoked[:10])
    credentials = {
        "missing": None,
        "empty": "",
        "unknown key": "eyp_" + "a" * 43,
        "expired key": await create_key(store, "a", now() - timedelta(seconds=1)),
        "revoked key": revoked,
        "expired token": hospital.token(*SCOPES, exp=int(time.time()) - 3600),
        "wrong audience": hospital.token(*SCOPES, aud="another-service"),
        "wrong key": hospital.token(*SCOPES, key=rsa_key("somebody else")),
        "wrong issuer": hospital.token(*SCOPES, iss="https://evil.example"),
        "no tenant": hospital.token(*SCOPES, tenant=None),
        "unsigned": hospital.token(*SCOPES).rsplit(".", 1)[0] + ".",
        "HS256 with the public key": hospital.provider.signed_with_its_public_key(),
        "another key id": hospital.token(*SCOPES, header={"kid": "../first"}),
    }
    for kind, credential in credentials.items():
        statuses = await hospital.statuses(credential)
        assert set(statuses.values()) == {401}, kind
        assert len(statuses) == len(EXPECTED)


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_another_tenants_credential_finds_nothing(hospital: Hospital, kind: str) -> None:
    others = await hospital.key(*SCOPES, tenant="b") if kind == "key" else hospital.token(*SCOPES, tenant="b")
    statuses = await hospital.statuses(others)

    of_the_slide = {where: status for where, status in statuses.items() if hospital.slide in where}
    assert len(of_the_slide) > 10
    # An empty question or region is refused before its slide is looked for.
    assert {where: status for where, status in of_the_slide.items() if status not in (404, 422)} == {}
    assert await hospital.app.state.parts.slides.find("a", hospital.slide) is not None


async def test_a_loopback_server_with_an_identity_provider_asks_for_a_credential(
    make_app: Callable[..., FastAPI], provider: IdentityProvider
) -> None:
    app = make_app(oidc_providers=(OidcProvider.model_validate(provider.settings()),))
    async with client_of(app) as client:
        refused = await client.get("/v1/slides")
        taken = await client.get("/v1/slides", headers={"Authorization": f"Bearer {provider.token()}"})
    await app.state.parts.credentials.aclose()

    assert (refused.status_code, taken.status_code) == (401, 200)
    assert "a token of your identity provider" in refused.json()["detail"]
