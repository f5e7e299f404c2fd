"""API keys and tenants. A key is 256 random bits; only its SHA-256 is stored, in the slide store.

(argon2 and its kind are for passwords: there is nothing to guess in 256 random bits.)

A key file that cannot be read, or that says more than this release knows (a newer one may have limited the key), opens
nothing and stops nothing: it is reported, it can be revoked by its digest, and it still counts as a key that exists.
"""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from server.errors import Unauthorized
from server.slides.slide_record import now
from server.storage.private_files import close_to_others
from server.storage.slide_store import TENANT_PATTERN, SlideStore, require_tenant_name

DEFAULT_TENANT = "default"
KEY_BEGIN = "eyp_"
_KEY_PATTERN = re.compile(r"eyp_[A-Za-z0-9_-]{43}")
KEYS_FOLDER = "keys"
# A revoked key is refused everywhere after at most this long.
_REMEMBERED_S = 15.0
_REMEMBERED_KEYS = 10_000
# So much of a key's digest names it to its operator.
DIGEST_SHOWN = 12

log = structlog.get_logger(__name__)


def _as_tenant(name: str) -> str:
    if not TENANT_PATTERN.fullmatch(name):
        raise ValueError("not a tenant")
    return name


class ApiKey(BaseModel):
    """What is stored of a key, under its digest. `prefix` lets people tell their keys apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Annotated[str, AfterValidator(_as_tenant)]
    prefix: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None

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
    if store.local_root is not None:
        close_to_others(store.local_root / KEYS_FOLDER)
    return secret


async def any_key(store: SlideStore) -> bool:
    """Whether a key exists, readable or not: a damaged one must not open what a key had closed."""
    return bool(await _digests(store))


async def list_keys(store: SlideStore) -> list[StoredKey]:
    """Every key that can be read, oldest first."""
    return sorted((await _stored(store))[0], key=lambda stored: stored.key.created_at)


async def damaged_keys(store: SlideStore) -> list[str]:
    """The digests of the keys that cannot be read, sorted."""
    return (await _stored(store))[1]


async def revoke_key(store: SlideStore, prefix: str) -> int:
    """Delete the keys whose text starts with `prefix`, and those that cannot be read and whose digest starts with it;
    how many there were."""
    readable, damaged = await _stored(store)
    digests = [stored.digest for stored in readable if stored.key.prefix == prefix[:10]]
    if len(prefix) >= DIGEST_SHOWN:
        digests += [digest for digest in damaged if digest.startswith(prefix)]
    for digest in digests:
        await store.delete(_path(digest))
    return len(digests)


async def _stored(store: SlideStore) -> tuple[list[StoredKey], list[str]]:
    readable, damaged = [], []
    for digest in await _digests(store):
        content = await store.get(_path(digest))
        if content is None:  # revoked meanwhile
            continue
        key = _read(digest, content)
        if key is None:
            damaged.append(digest)
        else:
            readable.append(StoredKey(digest, key))
    return readable, damaged


async def _digests(store: SlideStore) -> list[str]:
    names = await store.objects(KEYS_FOLDER)
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _read(digest: str, content: bytes) -> ApiKey | None:
    """The key in a file; None, and a line in the log, when it is none."""
    try:
        return ApiKey.model_validate_json(content)
    except ValidationError:
        log.warning("key_unreadable", key_digest=digest[:DIGEST_SHOWN])
        return None


class KeyRing:
    """Looks keys up and remembers the answer for a few seconds."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store
        self._any_exists = False
        self._any_known_until = 0.0
        self._remembered: dict[str, tuple[float, ApiKey]] = {}

    async def any_exists(self) -> bool:
        """Whether there is any key: the first ends keyless access with the next request, or, where asking the store
        takes longer than looking into a folder, within seconds. That it was the last one is noticed within seconds."""
        is_cheap = self._store.local_root is not None
        if self._any_known_until <= time.monotonic() or (is_cheap and not self._any_exists):
            self._any_exists = await any_key(self._store)
            self._any_known_until = time.monotonic() + _REMEMBERED_S
        return self._any_exists

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
        key = _read(digest, content)
        if key is None:
            return None
        self._remembered[digest] = (time.monotonic() + _REMEMBERED_S, key)
        return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _path(digest: str) -> str:
    return f"{KEYS_FOLDER}/{digest}.json"
