"""Tokens of identity providers: a signed JWT becomes a caller, or is refused with the reason.

What is checked: the issuer is one of ours; the algorithm is one that the operator allows and the key is for; the key is
in the issuer's own set, under its id; signature, `aud`, `exp`, and `nbf` and `iat` where they are there; and that the
claims name a tenant. A token cannot be revoked: it holds until it expires, so providers should make them short-lived.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError

from server.errors import Unauthorized
from server.identity.caller import Caller
from server.identity.oidc_provider import OidcProvider
from server.identity.signing_keys import SigningKeys
from server.storage.slide_store import TENANT_PATTERN

# A key that was withdrawn ends what was verified with it within this and signing_keys.FRESH_S.
_REMEMBERED_S = 60.0
_REMEMBERED_TOKENS = 10_000
_LONGEST_TOKEN = 16 * 1024
# By these a token would bring its own key along.
_BRINGS_A_KEY = frozenset({"jwk", "jku", "x5u", "x5c"})
_ANOTHER = "get another one from your identity provider"


@dataclass(frozen=True)
class _Verified:
    """What a token stands for, until then (monotonic)."""

    until_s: float
    caller: Caller


class TokenVerifier:
    """Verifies tokens, and remembers the answer for a minute: a signature costs some tenths of a millisecond."""

    def __init__(self, providers: Sequence[OidcProvider], client: httpx.AsyncClient | None = None) -> None:
        """`client` fetches keys; it is closed with this."""
        self._client = client or httpx.AsyncClient(limits=httpx.Limits(max_connections=4))
        self._issuers = {it.issuer: (it, SigningKeys(it, self._client)) for it in providers}
        self._verified: dict[bytes, _Verified] = {}

    async def caller_of(self, token: str) -> Caller:
        """Whoever the token is for.

        Raises:
            Unauthorized: it is not valid here.
            IdentityProviderUnavailable: that cannot be found out now.
        """
        name = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._verified.get(name)
        if known is not None and known.until_s > time.monotonic():
            return known.caller
        caller, expires_in_s = await self._verify(token)
        if len(self._verified) >= _REMEMBERED_TOKENS:
            self._verified.clear()
        self._verified[name] = _Verified(time.monotonic() + min(_REMEMBERED_S, expires_in_s), caller)
        return caller

    async def _verify(self, token: str) -> tuple[Caller, float]:
        header, told = _unverified(token)
        issuer = told.get("iss")
        provider, keys = self._issuers.get(issuer if isinstance(issuer, str) else "", (None, None))
        if provider is None or keys is None:
            raise _refused(f"it is from an issuer that this server does not know; {_ANOTHER}")
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in provider.algorithms or not isinstance(algorithm, str):
            raise _refused("it is signed with an algorithm that is not allowed here; ask the operator which are")
        if not isinstance(key_id, str) or _BRINGS_A_KEY & header.keys():
            raise _refused("its header must name its key by `kid` and by nothing else")
        key = await keys.find(key_id, algorithm)
        if key is None:
            raise _refused(f"its issuer has no such key to sign with; {_ANOTHER}")
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError) as error:
            raise _refused(f"its signature is wrong; {_ANOTHER}") from error
        _require_claims(provider, claims)
        return _caller(provider, claims), max(0.0, claims["exp"] + provider.leeway_s - time.time())

    async def aclose(self) -> None:
        """Close connections."""
        for _, keys in self._issuers.values():
            await keys.aclose()
        await self._client.aclose()


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as they are said, to find out whose key decides."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN:
        raise _refused(f"it is not a signed token; {_ANOTHER}")
    try:
        header, claims = (orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (ValueError, binascii.Error) as error:
        raise _refused(f"it cannot be read; {_ANOTHER}") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _refused(f"it cannot be read; {_ANOTHER}")
    return header, claims


def _require_claims(provider: OidcProvider, claims: dict[str, Any]) -> None:
    required = jwt.JWTClaimsRegistry(
        leeway=provider.leeway_s,
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": provider.audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        required.validate(claims)
    except ExpiredTokenError as error:
        raise _refused(f"it has expired; {_ANOTHER}") from error
    except MissingClaimError as error:
        raise _refused(f"it must have the claims iss, sub, aud and exp; {_ANOTHER}") from error
    except InvalidClaimError as error:
        if error.claim == "aud":
            raise _refused("it is for another service; ask your identity provider for one for this server") from error
        raise _refused(f"its claim `{error.claim}` is not valid; {_ANOTHER}") from error


def _caller(provider: OidcProvider, claims: dict[str, Any]) -> Caller:
    tenant = provider.tenant_of(claims)
    if tenant is None or not TENANT_PATTERN.fullmatch(tenant):
        raise _refused("it names no tenant of this server; ask the operator which claim must")
    return Caller(tenant, provider.scopes_of(claims), f"{provider.issuer} {claims['sub']}")


def _refused(reason: str) -> Unauthorized:
    return Unauthorized(f"The token is not valid: {reason}.")
