"""API keys and tenants. A key is 256 random bits; only its SHA-256 is stored, in the slide store.

(argon2 and its kind are for passwords: there is nothing to guess in 256 random bits.)
"""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from server.errors import Unauthorized
from server.slide_store import SlideStore, require_tenant_name
from server.slides import now

DEFAULT_TENANT = "default"
_KEY_PATTERN = re.compile(r"eyp_[A-Za-z0-9_-]{43}")
_FOLDER = "keys"
# A revoked key is refused everywhere after at most this long.
_REMEMBERED_S = 15.0
_REMEMBERED_KEYS = 10_000


class ApiKey(BaseModel):
    """What is stored of a key, under its digest. `prefix` lets people tell their keys apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now()


@dataclass(frozen=True)
class StoredKey:
    """A key with the digest that names it."""

    digest: str
    key: ApiKey


async def create_key(store: SlideStore, tenant: str, expires_at: datetime | None = None) -> str:
    """Make a key for a tenant; the returned text is shown once and stored nowhere."""
    require_tenant_name(tenant)
    secret = f"eyp_{secrets.token_urlsafe(32)}"
    key = ApiKey(tenant=tenant, prefix=secret[:10], created_at=now(), expires_at=expires_at)
    await store.put(_path(_digest(secret)), key.model_dump_json().encode())
    return secret


async def list_keys(store: SlideStore) -> list[StoredKey]:
    """Every stored key, oldest first."""
    names = [name.removesuffix(".json") for name in await store.objects(_FOLDER)]
    keys = [(name, await store.get(_path(name))) for name in names]
    found = [StoredKey(name, ApiKey.model_validate_json(text)) for name, text in keys if text is not None]
    return sorted(found, key=lambda stored: stored.key.created_at)


async def revoke_key(store: SlideStore, prefix: str) -> int:
    """Delete the keys whose text starts with `prefix`; how many there were."""
    matching = [stored for stored in await list_keys(store) if stored.key.prefix == prefix[:10]]
    for stored in matching:
        await store.delete(_path(stored.digest))
    return len(matching)


class KeyRing:
    """Looks keys up and remembers the answer for a few seconds."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store
        self._remembered: dict[str, tuple[float, ApiKey]] = {}

    async def tenant_of(self, secret: str) -> str:
        """The tenant of a key.

        Raises:
            Unauthorized: no such key, or it has expired.
        """
        key = await self._find(secret) if _KEY_PATTERN.fullmatch(secret) else None
        if key is None or key.expired:
            raise Unauthorized("The API key is not valid; ask the operator for one (eyepiece keys create).")
        return key.tenant

    async def _find(self, secret: str) -> ApiKey | None:
        digest = _digest(secret)
        remembered = self._remembered.get(digest)
        if remembered is not None and remembered[0] > time.monotonic():
            return remembered[1]
        content = await self._store.get(_path(digest))
        if content is None:
            self._remembered.pop(digest, None)
            return None
        if len(self._remembered) >= _REMEMBERED_KEYS:
            self._remembered.clear()
        key = ApiKey.model_validate_json(content)
        self._remembered[digest] = (time.monotonic() + _REMEMBERED_S, key)
        return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _path(digest: str) -> str:
    return f"{_FOLDER}/{digest}.json"
