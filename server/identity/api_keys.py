"""API keys. A key is 256 random bits; only its SHA-256 is stored, in the slide store, with its tenant and scopes.

(argon2 and its kind are for passwords: there is nothing to guess in 256 random bits.)

A key file that cannot be read, or that says more than this release knows (a newer one may have limited the key), opens
nothing and stops nothing: it is reported, it can be revoked by its digest, and it still counts as a key that exists.
"""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from server.errors import InvalidRequest, Unauthorized
from server.identity.access_scopes import ALL_SCOPES, AccessScope
from server.identity.caller import Caller
from server.identity.key_uses import KeyUses, forget_use
from server.slides.slide_record import now
from server.storage.private_files import close_to_others
from server.storage.slide_store import TENANT_PATTERN, SlideStore, require_tenant_name

KEY_BEGIN = "eyp_"
_KEY_PATTERN = re.compile(r"eyp_[A-Za-z0-9_-]{43}")
KEYS_FOLDER = "keys"
# A revoked key is refused everywhere after at most this long.
_REMEMBERED_S = 15.0
_REMEMBERED_KEYS = 10_000
# So much of a key's digest names it to its operator.
DIGEST_SHOWN = 12
PREFIX_CHARS = 10

log = structlog.get_logger(__name__)


def _as_tenant(name: str) -> str:
    if not TENANT_PATTERN.fullmatch(name):
        raise ValueError("not a tenant")
    return name


class ApiKey(BaseModel):
    """What is stored of a key, under its digest. `prefix` lets people tell their keys apart; `scopes` of None are all
    scopes, also those of later releases: keys that were made before there were scopes have none written down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Annotated[str, AfterValidator(_as_tenant)]
    prefix: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    scopes: tuple[AccessScope, ...] | None = None

    @property
    def allowed(self) -> frozenset[AccessScope]:
        """Its scopes."""
        return ALL_SCOPES if self.scopes is None else frozenset(self.scopes)

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now()


@dataclass(frozen=True)
class StoredKey:
    """A key with the digest that names it."""

    digest: str
    key: ApiKey


@dataclass(frozen=True)
class RotatedKey:
    """A new key in place of an old one, which is valid until `old_until`."""

    secret: str
    key: ApiKey
    old_until: datetime


async def create_key(
    store: SlideStore,
    tenant: str,
    expires_at: datetime | None = None,
    scopes: tuple[AccessScope, ...] | None = None,
) -> str:
    """Make a key for a tenant, with all scopes or some; the returned text is shown once and stored nowhere."""
    return (await _create(store, tenant, expires_at, scopes))[0]


async def _create(
    store: SlideStore, tenant: str, expires_at: datetime | None, scopes: tuple[AccessScope, ...] | None
) -> tuple[str, ApiKey]:
    require_tenant_name(tenant)
    secret = f"eyp_{secrets.token_urlsafe(32)}"
    key = ApiKey(tenant=tenant, prefix=secret[:PREFIX_CHARS], created_at=now(), expires_at=expires_at, scopes=scopes)
    await _keep(store, _digest(secret), key)
    return secret, key


async def _keep(store: SlideStore, digest: str, key: ApiKey) -> None:
    # Without fields that say nothing: a release that does not know scopes reads the key then, after a downgrade.
    await store.put(_path(digest), key.model_dump_json(exclude_none=True).encode())
    if store.local_root is not None:
        close_to_others(store.local_root / KEYS_FOLDER)


async def rotate_key(
    store: SlideStore, prefix: str, overlap: timedelta, expires_at: datetime | None = None
) -> RotatedKey:
    """Make a key with the tenant, the scopes and (unless `expires_at` says otherwise) the lifetime of the key that
    begins with `prefix`, which stays valid for `overlap`, or until it expires: clients change over without a gap.

    Raises:
        InvalidRequest: no valid key begins like that, or several do.
    """
    found = [stored for stored in await list_keys(store) if stored.key.prefix == prefix[:PREFIX_CHARS]]
    if len(found) != 1 or found[0].key.expired:
        raise InvalidRequest("There must be one valid key that begins like that: `eyepiece keys list` shows them.")
    old = found[0].key
    if expires_at is None and old.expires_at is not None:
        expires_at = now() + (old.expires_at - old.created_at)
    secret, key = await _create(store, old.tenant, expires_at, old.scopes)
    ends = now() + overlap
    old_until = ends if old.expires_at is None else min(ends, old.expires_at)
    await _keep(store, found[0].digest, old.model_copy(update={"expires_at": old_until}))
    return RotatedKey(secret, key, old_until)


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
    digests = [stored.digest for stored in readable if stored.key.prefix == prefix[:PREFIX_CHARS]]
    if len(prefix) >= DIGEST_SHOWN:
        digests += [digest for digest in damaged if digest.startswith(prefix)]
    for digest in digests:
        await store.delete(_path(digest))
        await forget_use(store, digest)
    return len(digests)


async def revoke_keys_of(store: SlideStore, tenant: str) -> int:
    """Delete all keys of a tenant that can be read; how many there were."""
    of_tenant = [stored for stored in await list_keys(store) if stored.key.tenant == tenant]
    for stored in of_tenant:
        await store.delete(_path(stored.digest))
        await forget_use(store, stored.digest)
    return len(of_tenant)


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


@dataclass(frozen=True)
class _Remembered:
    """A key that was looked up, and until when that holds."""

    until_s: float
    key: ApiKey
    caller: Caller


class KeyRing:
    """Looks keys up and remembers the answer for a few seconds."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store
        self.uses = KeyUses(store)
        self._any_exists = False
        self._any_known_until = 0.0
        self._remembered: dict[str, _Remembered] = {}

    async def any_exists(self) -> bool:
        """Whether there is any key: the first ends keyless access with the next request, or, where asking the store
        takes longer than looking into a folder, within seconds. That it was the last one is noticed within seconds."""
        is_cheap = self._store.local_root is not None
        if self._any_known_until <= time.monotonic() or (is_cheap and not self._any_exists):
            self._any_exists = await any_key(self._store)
            self._any_known_until = time.monotonic() + _REMEMBERED_S
        return self._any_exists

    async def caller_of(self, secret: str) -> Caller:
        """Whoever holds this key.

        Raises:
            Unauthorized: no such key, or it has expired.
        """
        found = await self._find(secret) if _KEY_PATTERN.fullmatch(secret) else None
        if found is None or found.key.expired:
            raise Unauthorized("The API key is not valid; ask the operator for one (eyepiece keys create).")
        return found.caller

    async def _find(self, secret: str) -> _Remembered | None:
        digest = _digest(secret)
        remembered = self._remembered.get(digest)
        if remembered is not None and remembered.until_s > time.monotonic():
            return remembered
        content = await self._store.get(_path(digest))
        if content is None:
            self._remembered.pop(digest, None)
            return None
        if len(self._remembered) >= _REMEMBERED_KEYS:
            self._remembered.clear()
        key = _read(digest, content)
        if key is None:
            return None
        found = _Remembered(time.monotonic() + _REMEMBERED_S, key, Caller(key.tenant, key.allowed, key.prefix))
        self._remembered[digest] = found
        if not key.expired:
            self.uses.note(digest)
        return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _path(digest: str) -> str:
    return f"{KEYS_FOLDER}/{digest}.json"
