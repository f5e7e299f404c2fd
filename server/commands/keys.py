"""`eyepiece keys`: API keys of tenants, kept in the slide store as digests."""

import asyncio
from datetime import datetime, timedelta

from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_json
from server.identity.api_keys import DIGEST_SHOWN, StoredKey, create_key, damaged_keys, list_keys, revoke_key
from server.settings import Settings
from server.slides.slide_record import now
from server.storage.slide_store import open_store


def create(settings: Settings, tenant: str, expires_days: int | None, as_json: bool) -> None:
    """Prints the key, once and never again."""
    expires_at = None if expires_days is None else now() + timedelta(days=expires_days)
    secret = asyncio.run(create_key(open_store(settings), tenant, expires_at))
    if as_json:
        print_json({"key": secret, "tenant": tenant, "expires_at": rfc3339(expires_at)})
    else:
        print(secret)


def show(settings: Settings, as_json: bool) -> None:
    """One line for each key, without the key itself."""
    store = open_store(settings)
    stored, damaged = asyncio.run(list_keys(store)), asyncio.run(damaged_keys(store))
    if as_json:
        print_json({"keys": [_public(it) for it in stored], "damaged": [digest[:DIGEST_SHOWN] for digest in damaged]})
        return
    for it in stored:
        print(f"{it.key.prefix}…  {it.key.tenant:<20} since {it.key.created_at:%Y-%m-%d}, {_validity(it)}")
    for digest in damaged:
        name = digest[:DIGEST_SHOWN]
        print(f"{name}…  cannot be read and opens nothing: `eyepiece keys revoke {name}` removes it.")


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


def _public(stored: StoredKey) -> dict[str, str | None]:
    key = stored.key
    times = {"created_at": rfc3339(key.created_at), "expires_at": rfc3339(key.expires_at)}
    return {"prefix": key.prefix, "tenant": key.tenant, **times}


def _validity(stored: StoredKey) -> str:
    if stored.key.expires_at is None:
        return "does not expire"
    return f"{'expired' if stored.key.expired else 'expires'} {stored.key.expires_at:%Y-%m-%d}"
