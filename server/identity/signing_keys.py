"""The public keys with which an identity provider's tokens are verified: fetched, kept, and refreshed with a limit.

A key is known by its id in this one provider's set, and by nothing that a token says about where keys are.
"""

import asyncio
import time
from typing import Any

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, RSAKey

from server.errors import IdentityProviderUnavailable
from server.identity.oidc_provider import OidcProvider

SigningKey = RSAKey | ECKey

# A key that the provider withdrew is believed for this long, and no question waits for a refresh before.
FRESH_S = 300.0
# While the provider is away its keys stay good for a day: it signs nothing new meanwhile.
STALE_S = 86_400.0
# Tokens with invented key ids do not make us ask the provider more often than this.
ASK_EVERY_S = 30.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 256 * 1024
_MOST_KEYS = 64
_LEAST_RSA_BITS = 2048

log = structlog.get_logger(__name__)


class SigningKeys:
    """One provider's keys by id."""

    def __init__(self, provider: OidcProvider, client: httpx.AsyncClient) -> None:
        self._provider = provider
        self._client = client
        self._keys: dict[str, tuple[SigningKey, str | None]] = {}
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, key_id: str, algorithm: str) -> SigningKey | None:
        """The key with this id, if it may sign with this algorithm; None when the provider has none.

        Raises:
            IdentityProviderUnavailable: its keys were never fetched, or too long ago, and cannot be now.
        """
        age_s = self._age_s()
        if age_s is None or age_s > STALE_S or (key_id not in self._keys and self._may_ask()):
            await self._refresh()
        elif age_s > FRESH_S and self._may_ask():
            self._begin_refresh()
        age_s = self._age_s()
        if age_s is None or age_s > STALE_S:
            raise IdentityProviderUnavailable(
                "The identity provider does not answer, so tokens cannot be checked; try again shortly."
            )
        key, of_algorithm = self._keys.get(key_id, (None, None))
        return key if of_algorithm in (None, algorithm) else None

    async def aclose(self) -> None:
        """End a refresh."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _age_s(self) -> float | None:
        return None if self._fetched_at is None else time.monotonic() - self._fetched_at

    def _may_ask(self) -> bool:
        return self._asked_at is None or time.monotonic() - self._asked_at >= ASK_EVERY_S

    async def _refresh(self) -> None:
        """Wait for a refresh, one for all who need it; at most one in ASK_EVERY_S."""
        if self._refreshing is None and not self._may_ask():
            return
        await asyncio.shield(self._begin_refresh())

    def _begin_refresh(self) -> "asyncio.Task[None]":
        if self._refreshing is None:
            self._asked_at = time.monotonic()
            self._refreshing = asyncio.ensure_future(self._fetch())
        return self._refreshing

    async def _fetch(self) -> None:
        try:
            found = _usable(await self._key_set())
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            log.warning("signing_keys_not_fetched", error=type(error).__name__)
        else:
            self._keys, self._fetched_at = found, time.monotonic()
            log.info("signing_keys_fetched", count=len(found))
        finally:
            self._refreshing = None

    async def _key_set(self) -> list[Any]:
        url = self._provider.jwks_url or await self._discovered()
        keys = (await self._json(url)).get("keys")
        if not isinstance(keys, list):
            raise ValueError("not a set of keys")
        return keys

    async def _discovered(self) -> str:
        """Where the provider says that its keys are."""
        issuer = self._provider.issuer
        found = await self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise ValueError("another issuer answers there")
        url = str(found.get("jwks_uri", ""))
        return OidcProvider.model_validate(self._provider.model_dump() | {"jwks_url": url}).jwks_url or _none_named()

    async def _json(self, url: str) -> dict[str, Any]:
        """A small JSON object from an address that the operator or the provider named; redirects are not followed."""
        import orjson

        content = b""
        async with self._client.stream("GET", url, timeout=_TIMEOUT_S, follow_redirects=False) as response:
            if response.status_code != 200:
                raise ValueError("no keys at this address")
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _MOST_BYTES:
                    raise ValueError("too large for a set of keys")
        found = orjson.loads(content)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found


def _none_named() -> str:
    raise ValueError("the provider names no set of keys")


def _usable(keys: list[Any]) -> dict[str, tuple[SigningKey, str | None]]:
    """By id the public keys that sign, each with the one algorithm that it is for, if it is for one. Keys that cannot
    be read, symmetric and short ones, and two with the same id are left out."""
    found: dict[str, tuple[SigningKey, str | None]] = {}
    twice: set[str] = set()
    for told in keys[:_MOST_KEYS]:
        if not isinstance(told, dict) or told.get("kty") not in ("RSA", "EC") or told.get("use", "sig") != "sig":
            continue
        key_id, algorithm = told.get("kid"), told.get("alg")
        is_short = told["kty"] == "RSA" and len(str(told.get("n", ""))) * 6 < _LEAST_RSA_BITS
        if not isinstance(key_id, str) or not key_id or is_short:
            continue
        try:
            key = JWKRegistry.import_key(told)
        except (JoseError, ValueError, TypeError):
            continue
        if not isinstance(key, SigningKey) or (isinstance(key, RSAKey) and key.public_key.key_size < _LEAST_RSA_BITS):
            continue
        if key_id in found:
            twice.add(key_id)
        found[key_id] = key, algorithm if isinstance(algorithm, str) else None
    return {key_id: key for key_id, key in found.items() if key_id not in twice}
