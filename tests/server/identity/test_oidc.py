"""Tokens of identity providers: who is believed, and each way of forging one that is known."""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, RSAKey
from oidc_provider import IdentityProvider, rsa_key, running_provider
from pydantic import ValidationError

from server.errors import IdentityProviderUnavailable, Unauthorized
from server.identity import signing_keys
from server.identity.access_scopes import ALL_SCOPES
from server.identity.oidc import TokenVerifier
from server.identity.oidc_provider import OidcProvider


@pytest.fixture(scope="module")
def _running() -> Iterator[IdentityProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(_running: IdentityProvider) -> IdentityProvider:
    """As it was when it started."""
    _running.rotate("first")
    _running.asked, _running.is_down = 0, False
    return _running


Verifier = Callable[..., TokenVerifier]


@pytest.fixture
async def verifier(provider: IdentityProvider) -> AsyncIterator[Verifier]:
    made: list[TokenVerifier] = []

    def make(*others: dict[str, Any], **changes: Any) -> TokenVerifier:
        described = [provider.settings(**changes), *others]
        plain = httpx.AsyncClient(verify=False)  # reading the system's certificates takes long, and none is needed
        made.append(TokenVerifier([OidcProvider.model_validate(it) for it in described], plain))
        return made[-1]

    yield make
    for it in made:
        await it.aclose()


async def refusal(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await verifier.caller_of(token)
    return refused.value.detail


async def test_a_signed_token_is_a_caller(provider: IdentityProvider, verifier: Verifier) -> None:
    caller = await verifier().caller_of(provider.token())

    assert (caller.tenant, caller.scopes) == ("a", ALL_SCOPES)
    assert caller.name == f"{provider.issuer} dr-jansen"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp": 1}, "has expired"),
        ({"exp": None}, "must have the claims"),
        ({"exp": "never"}, "`exp`"),
        ({"exp": float("nan")}, ""),
        ({"aud": "another-service"}, "another service"),
        ({"aud": ["x", "eyepiece2"]}, "another service"),
        ({"aud": None}, "must have the claims"),
        ({"sub": None}, "must have the claims"),
        ({"iss": "https://evil.example"}, "does not know"),
        ({"iss": None}, "does not know"),
        ({"iss": ["http://127.0.0.1"]}, "does not know"),
        ({"nbf": time.time() + 3600}, "`nbf`"),
        ({"tenant": None}, "names no tenant"),
        ({"tenant": "../b"}, "names no tenant"),
        ({"tenant": ["a", "b"]}, "names no tenant"),
    ],
)
async def test_claims_that_are_wrong_are_refused_with_the_reason(
    provider: IdentityProvider, verifier: Verifier, changes: dict[str, Any], said: str
) -> None:
    assert said in await refusal(verifier(), provider.token(**changes))


async def test_an_audience_among_several_is_ours(provider: IdentityProvider, verifier: Verifier) -> None:
    assert (await verifier().caller_of(provider.token(aud=["portal", "eyepiece"]))).tenant == "a"


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_no_algorithm_is_no_signature(provider: IdentityProvider, verifier: Verifier) -> None:
    for name in ("none", "None", "nOnE", ""):
        token = f"{encoded({'alg': name, 'kid': 'first'})}.{encoded(provider.claims())}."
        assert "algorithm that is not allowed" in await refusal(verifier(), token)


async def test_a_public_key_is_never_a_shared_secret(provider: IdentityProvider, verifier: Verifier) -> None:
    assert "algorithm that is not allowed" in await refusal(verifier(), provider.signed_with_its_public_key())
    with pytest.raises(ValidationError):
        verifier(algorithms=["HS256"])


@pytest.mark.parametrize(
    "key_id",
    [
        "second",
        "",
        "../../../dev/null",
        "/dev/null",
        "' UNION SELECT 'x",
        "first\0",
        "http://evil.example/keys",
        0,
        None,
    ],
)
async def test_a_key_id_is_a_name_and_nothing_else(provider: IdentityProvider, verifier: Verifier, key_id: Any) -> None:
    own = rsa_key("somebody")
    token = provider.token(header={"kid": "first"}, key=own).split(".")
    token[0] = encoded({"alg": "RS256", "kid": key_id})

    assert "signature is wrong" not in await refusal(verifier(), ".".join(token))


async def test_a_token_cannot_bring_its_own_key(provider: IdentityProvider, verifier: Verifier) -> None:
    own = rsa_key("somebody")
    brought: dict[str, Any] = {
        "jwk": own.as_dict(private=False),
        "jku": "http://127.0.0.1:9/keys",
        "x5u": "http://127.0.0.1:9/chain",
        "x5c": ["MIIB"],
    }
    for name, value in brought.items():
        plain = provider.token(key=own).split(".")
        plain[0] = encoded({"alg": "RS256", "kid": "first", name: value})
        assert "name its key by `kid`" in await refusal(verifier(), ".".join(plain))


async def test_another_key_of_the_same_name_is_a_wrong_signature(
    provider: IdentityProvider, verifier: Verifier
) -> None:
    assert "signature is wrong" in await refusal(verifier(), provider.token(key=rsa_key("somebody")))
    changed = provider.token().split(".")
    changed[1] = encoded(provider.claims(tenant="b"))
    assert "signature is wrong" in await refusal(verifier(), ".".join(changed))


async def test_one_issuer_cannot_sign_for_another(provider: IdentityProvider, verifier: Verifier) -> None:
    with running_provider() as other:
        both = verifier(other.settings(tenant="b", tenant_claim=""))
        assert (await both.caller_of(other.token())).tenant == "b"
        assert (await both.caller_of(provider.token())).tenant == "a"
        assert "signature is wrong" in await refusal(both, other.token(iss=provider.issuer))


@pytest.mark.parametrize("token", ["a.b.c", "..", "a" * 20_000 + ".b.c", "é.é.é", f"{encoded([])}.{encoded({})}.x"])
async def test_what_is_no_token_is_refused(verifier: Verifier, token: str) -> None:
    assert await refusal(verifier(), token)


async def test_a_key_is_for_its_algorithm_alone(provider: IdentityProvider, verifier: Verifier) -> None:
    provider.shown = [provider.key.as_dict(private=False) | {"alg": "RS512"}]
    assert "no such key" in await refusal(verifier(algorithms=["RS256", "RS512"]), provider.token())

    elliptic = ECKey.generate_key("P-256", parameters={"kid": "first"})
    provider.shown = [elliptic.as_dict(private=False)]
    both = verifier(algorithms=["RS256", "ES256"])
    assert (await both.caller_of(provider.token(header={"alg": "ES256"}, key=elliptic))).tenant == "a"
    assert "signature is wrong" in await refusal(both, provider.token())


async def test_weak_secret_and_ambiguous_keys_are_left_out(provider: IdentityProvider, verifier: Verifier) -> None:
    good = provider.key.as_dict(private=False)
    with pytest.warns(SecurityWarning, match="size"):
        weak = RSAKey.generate_key(1024, parameters={"kid": "first"})
    secret = {"kty": "oct", "kid": "first", "k": "c2VjcmV0c2VjcmV0c2VjcmV0"}
    sets: list[list[Any]] = [
        [weak.as_dict(private=False)],
        [secret],
        [good, rsa_key("somebody").as_dict(private=False)],
        ["x"],
    ]
    for shown in (*sets, [good | {"use": "enc"}], [{"kty": "RSA", "kid": "first", "n": "!", "e": "AQAB"}]):
        provider.shown = shown
        assert "no such key" in await refusal(verifier(), provider.token())


async def test_keys_are_fetched_once_and_a_new_one_is_found(
    provider: IdentityProvider, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = verifier()
    for number in range(5):
        await tokens.caller_of(provider.token(jti=str(number)))
    assert provider.asked == 1

    provider.rotate("second")
    assert "no such key" in await refusal(tokens, provider.token(header={"kid": "second"}))  # asked a moment ago
    assert provider.asked == 1
    monkeypatch.setattr(signing_keys, "ASK_EVERY_S", 0.0)
    assert (await tokens.caller_of(provider.token(header={"kid": "second"}))).tenant == "a"
    assert provider.asked == 2


async def test_invented_key_ids_do_not_make_us_ask_the_provider(provider: IdentityProvider, verifier: Verifier) -> None:
    tokens = verifier()
    await tokens.caller_of(provider.token())
    for number in range(20):
        await refusal(tokens, provider.token(header={"kid": f"invented-{number}"}))

    assert provider.asked == 1


async def test_a_provider_that_is_away_is_not_a_wrong_token(
    provider: IdentityProvider, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = verifier()
    provider.is_down = True
    for _ in range(2):
        with pytest.raises(IdentityProviderUnavailable):
            await tokens.caller_of(provider.token())
    provider.is_down = False
    monkeypatch.setattr(signing_keys, "ASK_EVERY_S", 0.0)
    await tokens.caller_of(provider.token())

    provider.is_down = True
    monkeypatch.setattr(signing_keys, "FRESH_S", 0.0)
    await tokens.caller_of(provider.token(jti="its keys are kept"))


async def test_discovery_of_another_issuer_gives_no_keys(provider: IdentityProvider, verifier: Verifier) -> None:
    tokens = verifier(issuer=f"{provider.issuer}/", jwks_url="")
    with pytest.raises(IdentityProviderUnavailable):
        await tokens.caller_of(provider.token(iss=f"{provider.issuer}/"))


@pytest.mark.parametrize(
    ("described", "claims", "tenant", "scopes"),
    [
        ({"tenant_claim": "", "tenant": "lab"}, {"tenant": "x"}, "lab", ALL_SCOPES),
        ({"tenants": {"/Hospital A": "a"}}, {"tenant": "/Hospital A"}, "a", ALL_SCOPES),
        ({"tenants": {"/Hospital A": "a"}}, {"tenant": ["/Hospital A", "/Staff"]}, "a", ALL_SCOPES),
        ({"scope_claim": "realm_access.roles"}, {"realm_access": {"roles": ["ask", "x"]}}, "a", {"ask"}),
        ({"scope_claim": "https://h.example/roles"}, {"https://h.example/roles": ["ask"]}, "a", {"ask"}),
        (
            {"scope_claim": "groups", "scopes": {"Pathologists": ["slides:read", "ask"], "IT": ["admin"]}},
            {"groups": ["Pathologists", "admin"]},
            "a",
            {"slides:read", "ask"},
        ),
        ({}, {"scope": None}, "a", set()),
        ({}, {"scope": {"ask": True}}, "a", set()),
        ({"scope_claim": "a.b"}, {"a": "b"}, "a", set()),
    ],
)
async def test_claims_say_tenant_and_scopes_as_configured(
    provider: IdentityProvider,
    verifier: Verifier,
    described: dict[str, Any],
    claims: dict[str, Any],
    tenant: str,
    scopes: set[str],
) -> None:
    caller = await verifier(**described).caller_of(provider.token(**claims))

    assert (caller.tenant, caller.scopes) == (tenant, scopes)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://idp.example"},
        {"issuer": ""},
        {"issuer": "ftp://127.0.0.1"},
        {"jwks_url": "http://idp.example/keys"},
        {"audience": ""},
        {"tenant": "x"},
        {"tenant_claim": ""},
        {"tenant_claim": "", "tenant": "x", "tenants": {"a": "a"}},
        {"scopes": {"x": ["everything"]}},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"algorithm": "RS256"},
    ],
)
def test_a_provider_that_is_described_wrongly_is_refused(changes: dict[str, Any]) -> None:
    usual = {"issuer": "https://idp.example", "audience": "eyepiece", "tenant_claim": "tenant"}
    OidcProvider.model_validate(usual)
    with pytest.raises(ValidationError):
        OidcProvider.model_validate(usual | changes)
