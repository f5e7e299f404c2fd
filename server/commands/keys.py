"""`eyepiece keys`: API keys of tenants, kept in the slide store as digests."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta

from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_json
from server.identity.access_scopes import SCOPES, AccessScope, scopes_among
from server.identity.api_keys import (
    DIGEST_SHOWN,
    PREFIX_CHARS,
    RotatedKey,
    StoredKey,
    create_key,
    damaged_keys,
    list_keys,
    revoke_key,
    rotate_key,
)
from server.identity.audited_command import audited_command
from server.identity.key_uses import last_use
from server.settings import Settings
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore, open_store


@dataclass(frozen=True)
class KeyOptions:
    """What a new key is for; no scopes are all scopes."""

    tenant: str
    expires_days: int | None
    scopes: tuple[str, ...]


def create(settings: Settings, options: KeyOptions, as_json: bool) -> None:
    """Prints the key, once and never again.

    Raises:
        CommandError: there is no such scope.
    """
    expires_at, scopes = _in_days(options.expires_days), _chosen(options.scopes)
    secret = asyncio.run(_create(settings, options.tenant, expires_at, scopes))
    if as_json:
        told = {"key": secret, "tenant": options.tenant, "expires_at": rfc3339(expires_at)}
        print_json(told | {"scopes": list(scopes or SCOPES)})
    else:
        print(secret)


def rotate(settings: Settings, prefix: str, expires_days: int | None, overlap_hours: int, as_json: bool) -> None:
    """Prints the new key, once and never again; the old one goes on for a while.

    Raises:
        InvalidRequest: there is not one valid key that begins with `prefix`.
    """
    overlap = timedelta(hours=overlap_hours)
    rotated = asyncio.run(_rotate(settings, prefix, overlap, _in_days(expires_days)))
    if as_json:
        told = {"key": rotated.secret, "tenant": rotated.key.tenant, "expires_at": rfc3339(rotated.key.expires_at)}
        print_json(told | {"old_until": rfc3339(rotated.old_until)})
    else:
        print(rotated.secret)
        sys.stderr.write(f"The old key is refused from {rotated.old_until:%Y-%m-%d %H:%M} UTC on.\n")


def show(settings: Settings, as_json: bool) -> None:
    """One line for each key, without the key itself."""
    stored, used, damaged = asyncio.run(_listed(settings))
    if as_json:
        public = [_public(it, moment) for it, moment in zip(stored, used, strict=True)]
        print_json({"keys": public, "damaged": [digest[:DIGEST_SHOWN] for digest in damaged]})
        return
    for it, moment in zip(stored, used, strict=True):
        print(
            f"{it.key.prefix}…  {it.key.tenant:<20} since {it.key.created_at:%Y-%m-%d}, {_validity(it)}, "
            f"{_use(moment)}, {_scopes(it)}"
        )
    for digest in damaged:
        name = digest[:DIGEST_SHOWN]
        print(f"{name}…  cannot be read and opens nothing: `eyepiece keys revoke {name}` removes it.")


async def _listed(settings: Settings) -> tuple[list[StoredKey], list[datetime | None], list[str]]:
    store = open_store(settings)
    async with audited_command(settings.audit_dir, store, "keys list"):
        return await _all_keys(store)


async def _all_keys(store: SlideStore) -> tuple[list[StoredKey], list[datetime | None], list[str]]:
    stored = await list_keys(store)
    return stored, [await last_use(store, it.digest) for it in stored], await damaged_keys(store)


def revoke(settings: Settings, prefix: str) -> None:
    """Deletes the keys that begin with `prefix`.

    Raises:
        CommandError: there is none.
    """
    if asyncio.run(_revoke(settings, prefix)) == 0:
        raise CommandError("No key begins like that: `eyepiece keys list` shows the beginnings.", ExitCode.USAGE)
    print("Revoked; servers that are running forget it within 15 seconds.")


async def _create(
    settings: Settings, tenant: str, expires_at: datetime | None, scopes: tuple[AccessScope, ...] | None
) -> str:
    store = open_store(settings)
    async with audited_command(settings.audit_dir, store, "keys create", tenant) as told:
        secret = await create_key(store, tenant, expires_at, scopes)
        told.about = {"key": secret[:PREFIX_CHARS]}
        return secret


async def _rotate(settings: Settings, prefix: str, overlap: timedelta, expires_at: datetime | None) -> RotatedKey:
    store = open_store(settings)
    async with audited_command(settings.audit_dir, store, "keys rotate") as told:
        rotated = await rotate_key(store, prefix, overlap, expires_at)
        told.tenant = rotated.key.tenant
        told.about = {"key": rotated.key.prefix, "old_key": prefix[:PREFIX_CHARS]}
        return rotated


async def _revoke(settings: Settings, prefix: str) -> int:
    store = open_store(settings)
    tenants = {stored.key.tenant for stored in await list_keys(store) if stored.key.prefix == prefix[:PREFIX_CHARS]}
    tenant = tenants.pop() if len(tenants) == 1 else None
    async with audited_command(settings.audit_dir, store, "keys revoke", tenant) as told:
        told.about = {"key": prefix[:PREFIX_CHARS]}
        return await revoke_key(store, prefix)


def rfc3339(moment: datetime | None) -> str | None:
    """As in the HTTP contract."""
    return None if moment is None else moment.isoformat()


def _in_days(days: int | None) -> datetime | None:
    return None if days is None else now() + timedelta(days=days)


def _chosen(names: tuple[str, ...]) -> tuple[AccessScope, ...] | None:
    """The scopes of these names, in the order of all scopes; None where none are named."""
    if unknown := sorted(set(names) - set(SCOPES)):
        raise CommandError(f"There is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}.", ExitCode.USAGE)
    chosen = scopes_among(list(names))
    return tuple(scope for scope in SCOPES if scope in chosen) or None


def _public(stored: StoredKey, used: datetime | None) -> dict[str, str | list[str] | None]:
    key = stored.key
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "last_used_at": used}
    told = {name: rfc3339(moment) for name, moment in times.items()}
    return {"prefix": key.prefix, "tenant": key.tenant, **told, "scopes": sorted(key.allowed, key=SCOPES.index)}


def _validity(stored: StoredKey) -> str:
    if stored.key.expires_at is None:
        return "does not expire"
    return f"{'expired' if stored.key.expired else 'expires'} {stored.key.expires_at:%Y-%m-%d}"


def _use(moment: datetime | None) -> str:
    return "not used yet" if moment is None else f"last used {moment:%Y-%m-%d %H}h"


def _scopes(stored: StoredKey) -> str:
    return "all scopes" if stored.key.scopes is None else " ".join(stored.key.scopes)
