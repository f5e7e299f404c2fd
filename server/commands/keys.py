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
    StoredKey,
    create_key,
    damaged_keys,
    list_keys,
    revoke_key,
    rotate_key,
)
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
    secret = asyncio.run(create_key(open_store(settings), options.tenant, expires_at, scopes))
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
    rotated = asyncio.run(rotate_key(open_store(settings), prefix, overlap, _in_days(expires_days)))
    if as_json:
        told = {"key": rotated.secret, "tenant": rotated.key.tenant, "expires_at": rfc3339(rotated.key.expires_at)}
        print_json(told | {"old_until": rfc3339(rotated.old_until)})
    else:
        print(rotated.secret)
        sys.stderr.write(f"The old key is refused from {rotated.old_until:%Y-%m-%d %H:%M} UTC on.\n")


def show(settings: Settings, as_json: bool) -> None:
    """One line for each key, without the key itself."""
    stored, used, damaged = asyncio.run(_all_keys(open_store(settings)))
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


async def _all_keys(store: SlideStore) -> tuple[list[StoredKey], list[datetime | None], list[str]]:
    stored = await list_keys(store)
    return stored, [await last_use(store, it.digest) for it in stored], await damaged_keys(store)


def revoke(settings: Settings, prefix: str) -> None:
    """Deletes the keys that begin with `prefix`.

    Raises:
        CommandError: there is none.
    """
    if asyncio.run(revoke_key(open_store(settings), prefix)) == 0:
        raise CommandError("No key begins like that: `eyepiece keys list` shows the beginnings.", ExitCode.USAGE)
    print("Revoked; servers that are running forget it within 15 seconds.")


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
