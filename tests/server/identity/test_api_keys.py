"""Keys: shown once, stored as a digest, expired, revoked, remembered for a few seconds."""

import asyncio
import hashlib
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from api_parts import until

from server.errors import InvalidRequest, StorageUnavailable, Unauthorized
from server.identity.api_keys import KeyRing, any_key, create_key, damaged_keys, list_keys, revoke_key
from server.slides.slide_record import now
from server.storage.private_files import close_to_others, open_to_others
from server.storage.slide_store import SlideStore


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore(str(tmp_path / "store"), tmp_path)


async def test_a_key_leads_to_its_tenant(store: SlideStore) -> None:
    secret = await create_key(store, "hospital-a")

    assert (await KeyRing(store).caller_of(secret)).tenant == "hospital-a"


async def test_the_secret_is_stored_nowhere(store: SlideStore, tmp_path: Path) -> None:
    secret = await create_key(store, "hospital-a")

    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(stored) == 1
    assert secret[10:] not in stored[0].read_text() + stored[0].name


def test_a_draft_that_goes_away_meanwhile_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept.json"
    kept.touch(mode=0o644)
    listed = [kept, tmp_path / "draft.json#1"]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))

    assert open_to_others(tmp_path)[-1] == kept
    close_to_others(tmp_path)

    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_no_two_keys_are_alike(store: SlideStore) -> None:
    secrets = await asyncio.gather(*(create_key(store, "a") for _ in range(20)))

    assert len(set(secrets)) == 20
    assert len(await list_keys(store)) == 20


@pytest.mark.parametrize("tenant", ["", "../b", "A", "a/b", "warm up"])
async def test_a_tenant_that_cannot_be_a_folder_gets_no_key(store: SlideStore, tenant: str) -> None:
    with pytest.raises(InvalidRequest):
        await create_key(store, tenant)


@pytest.mark.parametrize(
    "secret", ["", "eyp_", "eyp_" + "a" * 43, "eyp_" + "a" * 42 + "\n", "../../keys", "eyp_" + "ä" * 43, "x" * 10**6]
)
async def test_what_is_not_a_key_is_refused(store: SlideStore, secret: str) -> None:
    await create_key(store, "a")

    with pytest.raises(Unauthorized):
        await KeyRing(store).caller_of(secret)


async def test_an_expired_key_is_refused_even_while_it_is_remembered(store: SlideStore) -> None:
    keys = KeyRing(store)
    old = await create_key(store, "a", now() - timedelta(seconds=1))
    soon = await create_key(store, "a", now() + timedelta(milliseconds=50))
    later = await create_key(store, "a", now() + timedelta(days=1))

    assert (await keys.caller_of(later)).tenant == "a"
    with pytest.raises(Unauthorized):
        await keys.caller_of(old)
    stored = {entry.key.prefix: entry.key for entry in await list_keys(store)}
    while not stored[soon[:10]].expired:
        await keys.caller_of(later)
    with pytest.raises(Unauthorized):
        await keys.caller_of(soon)


async def test_a_revoked_key_is_refused_by_who_has_not_seen_it(store: SlideStore) -> None:
    kept, gone = await create_key(store, "a"), await create_key(store, "a")

    assert await revoke_key(store, gone) == 1

    with pytest.raises(Unauthorized):
        await KeyRing(store).caller_of(gone)
    assert (await KeyRing(store).caller_of(kept)).tenant == "a"


@pytest.mark.parametrize("prefix", ["", "eyp_", "e"])
async def test_a_short_prefix_revokes_nobody(store: SlideStore, prefix: str) -> None:
    await create_key(store, "a")

    assert await revoke_key(store, prefix) == 0


async def test_keys_are_listed_oldest_first(store: SlideStore) -> None:
    first = await create_key(store, "b")
    listed = await list_keys(store)
    await until(lambda: now() > listed[0].key.created_at)
    second = await create_key(store, "a")

    assert [stored.key.prefix for stored in await list_keys(store)] == [first[:10], second[:10]]


async def test_no_keys_are_an_empty_list(store: SlideStore) -> None:
    assert await list_keys(store) == []


async def test_a_key_is_remembered_while_the_store_is_away(store: SlideStore) -> None:
    keys = KeyRing(store)
    secret = await create_key(store, "a")
    await keys.caller_of(secret)
    folder = store.local_root / "keys" if store.local_root else Path()

    await store.delete_folder("keys")
    folder.write_text("a file where the folder was")

    assert (await keys.caller_of(secret)).tenant == "a"
    with pytest.raises((Unauthorized, StorageUnavailable)):
        await KeyRing(store).caller_of(secret)


DAMAGED_KEYS = {
    "empty": b"",
    "cut": b'{"tenant": "a", "pref',
    "a list": b"[]",
    "a tenant that is a path": b'{"tenant": "../a", "prefix": "eyp_abcdef", "created_at": "2026-11-28T12:00:00Z"}',
    "no time zone": b'{"tenant": "a", "prefix": "eyp_abcdef", "created_at": "2026-11-28T12:00:00"}',
    # A newer release may limit what a key opens: what is not understood is not granted.
    "a newer release's": b'{"tenant": "a", "prefix": "eyp_abcdef", "created_at": "2026-11-28T12:00:00Z", "scope": []}',
}


@pytest.mark.parametrize("damage", DAMAGED_KEYS)
async def test_a_damaged_key_opens_nothing_and_closes_nothing_else(store: SlideStore, damage: str) -> None:
    good, bad = await create_key(store, "a"), await create_key(store, "a")
    digest = hashlib.sha256(bad.encode()).hexdigest()
    await store.put(f"keys/{digest}.json", DAMAGED_KEYS[damage])
    keys = KeyRing(store)

    with pytest.raises(Unauthorized):
        await keys.caller_of(bad)
    assert (await keys.caller_of(good)).tenant == "a"
    assert [stored.key.prefix for stored in await list_keys(store)] == [good[:10]]
    assert await damaged_keys(store) == [digest]
    assert await revoke_key(store, good) == 1
    assert await any_key(store)

    assert await revoke_key(store, digest[:11]) == 0
    assert await revoke_key(store, digest[:12]) == 1
    assert not await any_key(store)


async def test_key_files_are_for_their_owner_only(store: SlideStore) -> None:
    folder = store.local_root / "keys" if store.local_root else Path()
    await store.put("keys/old.json", b"{}")
    (folder / "old.json").chmod(0o644)

    await create_key(store, "a")

    assert open_to_others(folder) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
