"""Keys with scopes, their last use, and their rotation."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from api_parts import until

from server.errors import InvalidRequest, Unauthorized
from server.identity.access_scopes import ALL_SCOPES
from server.identity.api_keys import KEYS_FOLDER, KeyRing, create_key, list_keys, revoke_key, rotate_key
from server.identity.key_uses import last_use
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore(str(tmp_path / "store"), tmp_path)


async def test_a_key_has_the_scopes_that_it_was_made_with(store: SlideStore) -> None:
    limited = await create_key(store, "a", scopes=("slides:read", "ask"))
    unlimited = await create_key(store, "a")

    assert (await KeyRing(store).caller_of(limited)).scopes == {"slides:read", "ask"}
    assert (await KeyRing(store).caller_of(unlimited)).scopes == ALL_SCOPES


async def test_a_key_of_an_older_release_has_all_scopes(store: SlideStore) -> None:
    """As 0.1.0 wrote it."""
    secret = await create_key(store, "a")
    (stored,) = await list_keys(store)
    old = {"tenant": "a", "prefix": secret[:10], "created_at": "2026-01-01T00:00:00Z", "expires_at": None}
    await store.put(f"{KEYS_FOLDER}/{stored.digest}.json", json.dumps(old).encode())

    assert (await KeyRing(store).caller_of(secret)).scopes == ALL_SCOPES


async def test_a_key_without_scopes_is_written_as_an_older_release_reads_it(store: SlideStore) -> None:
    await create_key(store, "a")
    (stored,) = await list_keys(store)

    written = json.loads(await store.get(f"{KEYS_FOLDER}/{stored.digest}.json") or b"")
    assert set(written) == {"tenant", "prefix", "created_at"}


async def test_a_scope_that_is_unknown_opens_nothing(store: SlideStore) -> None:
    secret = await create_key(store, "a", scopes=("ask",))
    (stored,) = await list_keys(store)
    path = f"{KEYS_FOLDER}/{stored.digest}.json"
    written = json.loads(await store.get(path) or b"") | {"scopes": ["ask", "of-a-later-release"]}
    await store.put(path, json.dumps(written).encode())

    with pytest.raises(Unauthorized):
        await KeyRing(store).caller_of(secret)


async def test_the_last_use_is_written_down_and_goes_with_the_key(store: SlideStore) -> None:
    secret = await create_key(store, "a")
    (stored,) = await list_keys(store)
    assert await last_use(store, stored.digest) is None
    keys = KeyRing(store)
    before = now()

    for _ in range(3):
        await keys.caller_of(secret)
    await keys.uses.aclose()

    used = await last_use(store, stored.digest)
    assert used is not None
    assert before <= used <= now()
    assert await revoke_key(store, secret[:10]) == 1
    assert await last_use(store, stored.digest) is None


async def test_a_key_that_is_refused_was_not_used(store: SlideStore) -> None:
    secret = await create_key(store, "a", now() - timedelta(seconds=1))
    keys = KeyRing(store)
    with pytest.raises(Unauthorized):
        await keys.caller_of(secret)
    await keys.uses.aclose()

    assert await last_use(store, (await list_keys(store))[0].digest) is None


async def test_both_keys_are_valid_while_clients_change_over(store: SlideStore) -> None:
    old = await create_key(store, "a", now() + timedelta(days=90), ("ask",))
    rotated = await rotate_key(store, old[:10], timedelta(hours=24))
    keys = KeyRing(store)

    assert await keys.caller_of(rotated.secret) != await keys.caller_of(old)
    for secret in (old, rotated.secret):
        caller = await keys.caller_of(secret)
        assert (caller.tenant, caller.scopes) == ("a", {"ask"})
    by_prefix = {stored.key.prefix: stored.key for stored in await list_keys(store)}
    assert by_prefix[old[:10]].expires_at == rotated.old_until
    assert timedelta(hours=23) < rotated.old_until - now() <= timedelta(hours=24)
    renewed = by_prefix[rotated.secret[:10]]
    assert renewed.expires_at is not None
    assert timedelta(days=89) < renewed.expires_at - now() <= timedelta(days=90)


async def test_the_old_key_ends_after_the_overlap(store: SlideStore) -> None:
    old = await create_key(store, "a")
    keys = KeyRing(store)
    await keys.caller_of(old)
    rotated = await rotate_key(store, old[:10], timedelta(milliseconds=1))

    assert rotated.key.expires_at is None

    async def is_refused() -> bool:
        try:
            await KeyRing(store).caller_of(old)
        except Unauthorized:
            return True
        return False

    await until(is_refused)
    assert (await keys.caller_of(rotated.secret)).tenant == "a"


async def test_a_rotation_never_makes_the_old_key_last_longer(store: SlideStore) -> None:
    soon = now() + timedelta(hours=1)
    old = await create_key(store, "a", soon)

    assert (await rotate_key(store, old[:10], timedelta(hours=24))).old_until == soon


async def test_what_is_not_one_valid_key_is_not_rotated(store: SlideStore) -> None:
    expired = await create_key(store, "a", now() - timedelta(seconds=1))
    for prefix in ("eyp_nobody", expired[:10], ""):
        with pytest.raises(InvalidRequest, match="keys list"):
            await rotate_key(store, prefix, timedelta(hours=1))
    assert len(await list_keys(store)) == 1
