"""The store, once in a local folder and once in memory behind the interface of a remote one."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from server.errors import InvalidRequest, StorageFull, StorageUnavailable
from server.settings import Settings
from server.storage.slide_store import (
    SlidePaths,
    SlideStore,
    open_store,
    require_tenant_name,
    slides_folder,
)
from server.storage.store_errors import translated

SLIDE_ID = "a" * 64


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SlideStore:
    url = str(tmp_path / "store") if request.param == "local" else "memory:///"
    return SlideStore(url, tmp_path / "scratch")


def staged(store: SlideStore, content: bytes) -> Path:
    path = store.new_staging_path()
    path.write_bytes(content)
    return path


async def test_what_was_put_can_be_read_and_replaced(store: SlideStore) -> None:
    await store.put("a/b", b"one")
    await store.put("a/b", b"two")

    assert await store.get("a/b") == b"two"
    assert await store.exists("a/b")


async def test_nothing_is_there_before_it_is_written(store: SlideStore) -> None:
    assert await store.get("a/b") is None
    assert not await store.exists("a/b")
    assert not await store.delete("a/b")
    assert await store.folders("a") == []
    assert await store.objects("a") == []
    assert await store.delete_folder("a") == 0


async def test_parts_of_an_object_are_read_where_it_lies(store: SlideStore) -> None:
    content = bytes(range(256)) * 20_000
    await store.put("a/b", content)

    async with store.opened("a/b") as found:
        with found.open("rb") if isinstance(found, Path) else found as file:
            assert file.seek(1_000_000) == 1_000_000
            assert await asyncio.to_thread(file.read, 300) == content[1_000_000:1_000_300]
            file.seek(-10, os.SEEK_END)
            assert await asyncio.to_thread(file.read) == content[-10:]
    with pytest.raises(FileNotFoundError):
        async with store.opened("a/c"):
            pass


async def test_a_folder_is_not_an_object(store: SlideStore) -> None:
    await store.put("tenants/a/b", b"x")

    assert not await store.exists("tenants")


async def test_only_the_first_of_many_creates(store: SlideStore) -> None:
    outcomes = await asyncio.gather(*(store.create("a/b", f"{index}".encode()) for index in range(20)))

    assert outcomes.count(True) == 1
    assert await store.get("a/b") == f"{outcomes.index(True)}".encode()


async def test_a_staged_file_is_published_once_and_never_stays(store: SlideStore) -> None:
    first, second = staged(store, b"first"), staged(store, b"second")

    assert await store.publish_file(first, "a/source/slide")
    assert not await store.publish_file(second, "a/source/slide")
    assert await store.get("a/source/slide") == b"first"
    assert list(store.staging_dir.iterdir()) == []


async def test_publishing_what_is_not_there_is_told(store: SlideStore) -> None:
    with pytest.raises((FileNotFoundError, StorageUnavailable)):
        await store.publish_file(store.new_staging_path(), "a/b")


async def test_deleting_a_folder_leaves_its_neighbours(store: SlideStore) -> None:
    for key in ("t/slides/ab/source/slide", "t/slides/ab/slide.json", "t/slides/abc/slide.json"):
        await store.put(key, b"x")

    assert await store.delete_folder("t/slides/ab") == 2
    assert await store.folders("t/slides") == ["abc"]


async def test_two_may_delete_the_same_folder_at_once(store: SlideStore) -> None:
    for index in range(50):
        await store.put(f"t/{index}", b"x")

    await asyncio.gather(*(store.delete_folder("t") for _ in range(4)))

    assert await store.objects("t") == []


async def test_two_may_delete_the_same_object_at_once(store: SlideStore) -> None:
    await store.put("a/b", b"x")

    await asyncio.gather(*(store.delete("a/b") for _ in range(8)))

    assert not await store.exists("a/b")


async def test_a_deleted_folder_leaves_no_empty_folders_on_disk(tmp_path: Path) -> None:
    store = SlideStore(str(tmp_path), tmp_path)
    await store.put("t/slides/ab/source/slide", b"x")

    await store.delete_folder("t/slides/ab")

    assert not (tmp_path / "t/slides/ab").exists()
    assert await store.folders("t/slides") == []


async def test_what_a_killed_writer_left_goes_with_the_folder(tmp_path: Path) -> None:
    store = SlideStore(str(tmp_path), tmp_path)
    await store.put("t/slides/ab/parts/x/part", b"x")
    (tmp_path / "t/slides/ab/parts/x/part#1").write_bytes(b"half of")
    assert await store.objects("t/slides/ab/parts/x") == ["part"], "the store hides it"

    assert await store.delete_folder("t/slides/ab") == 1

    assert not (tmp_path / "t/slides/ab").exists()


async def test_folders_and_objects_are_listed_by_name(store: SlideStore) -> None:
    for key in ("t/b/x", "t/a/x", "t/z", "t/y"):
        await store.put(key, b"x")

    assert await store.folders("t") == ["a", "b"]
    assert await store.objects("t") == ["y", "z"]


async def test_a_large_object_streams_in_pieces(store: SlideStore) -> None:
    content = bytes(range(256)) * 20_000
    await store.put("a/b", content)

    pieces = [piece async for piece in store.stream("a/b")]

    assert b"".join(pieces) == content
    assert len(pieces) > 1 or store.local_root is None


async def test_a_local_path_is_lent_for_reading(store: SlideStore) -> None:
    await store.put("a/b", b"content")

    async with store.local_file("a/b") as path:
        assert path.read_bytes() == b"content"

    assert path.exists() == (store.local_root is not None)
    assert list(store.staging_dir.iterdir()) == []


async def test_there_is_no_local_path_of_nothing(store: SlideStore) -> None:
    with pytest.raises(FileNotFoundError):
        async with store.local_file("a/b"):
            pass

    assert list(store.staging_dir.iterdir()) == []


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "A", "a\n", "-a", "a" * 64, "ä", "a:b", "{a}", "a*"])
def test_a_tenant_that_could_leave_its_folder_is_refused(tenant: str) -> None:
    with pytest.raises(InvalidRequest):
        require_tenant_name(tenant)
    with pytest.raises(InvalidRequest):
        slides_folder(tenant)
    with pytest.raises(InvalidRequest):
        _ = SlidePaths(tenant, SLIDE_ID).record


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/hostname"])
async def test_a_key_that_climbs_out_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_text("x")
    store = SlideStore(str(tmp_path / "store"), tmp_path)
    staged_file = staged(store, b"x")

    with pytest.raises(ValueError):
        await store.publish_file(staged_file, key)
    with pytest.raises(ValueError):
        async with store.local_file(key):
            pass
    if not key.startswith("/"):  # obstore reads a leading slash as "in the store"
        with pytest.raises(ValueError):
            await store.get(key)

    assert not staged_file.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_apart(number: int) -> None:
    with pytest.raises(StorageFull), translated():
        raise OSError(number, "disk of /data/patient")


def test_another_error_of_the_disk_says_nothing_of_its_path() -> None:
    with pytest.raises(StorageUnavailable) as caught, translated():
        raise OSError(errno.EIO, "disk of /data/patient")

    assert "patient" not in caught.value.detail


async def test_a_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    store = SlideStore(str(tmp_path / "store"), tmp_path)
    await store.put("a", b"a file where a folder would have to be")

    with pytest.raises(StorageUnavailable):
        await store.put("a/b", b"x")


def test_settings_without_url_mean_a_folder_of_the_data(settings: Settings) -> None:
    assert open_store(settings).local_root == (settings.data_dir / "store").resolve()


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    assert SlideStore(f"file://{tmp_path}/store", tmp_path).local_root == (tmp_path / "store").resolve()


def test_only_what_was_abandoned_in_staging_is_removed(tmp_path: Path) -> None:
    store = SlideStore(str(tmp_path / "store"), tmp_path / "scratch")
    old_file, old_folder, busy_folder = (store.new_staging_path() for _ in range(3))
    for path in (old_file, old_folder / "0", busy_folder / "0"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half a slide")
    for path in (old_file, old_folder / "0", old_folder, busy_folder):
        os.utime(path, (1, 1))

    removed = store.remove_abandoned()

    assert removed == 2
    assert list(store.staging_dir.iterdir()) == [busy_folder]


async def test_keys_come_in_order_behind_a_key_and_no_more_than_wished(store: SlideStore) -> None:
    keys = [f"{day}/{hour}/{name}" for day in ("08", "10") for hour in ("1", "2") for name in ("a", "b")]
    for key in reversed(keys):
        await store.put(f"t/{key}", b"")

    assert await store.keys_after("t", "", 100) == keys
    assert await store.keys_after("t", "", 3) == keys[:3]
    for number, key in enumerate(keys):
        assert await store.keys_after("t", key, 100) == keys[number + 1 :]
    assert await store.keys_after("t", "08/1/aa", 2) == keys[1:3]  # of an entry that is gone
    assert await store.keys_after("t", "09/1/x", 1) == keys[4:5]
    assert await store.keys_after("nothing", "", 5) == []


async def test_folders_are_gone_through_with_what_they_hold(store: SlideStore) -> None:
    for key in ("t/b/x", "t/a/x/y", "t/a/z", "t/ab/x"):
        await store.put(key, b"four")

    async def behind(after: str) -> dict[str, dict[str, int]]:
        return {name: sizes async for name, sizes in store.folders_with_objects("t", after)}

    assert await behind("") == {"a": {"x/y": 4, "z": 4}, "ab": {"x": 4}, "b": {"x": 4}}
    assert list(await behind("")) == ["a", "ab", "b"]
    assert await behind("a") == {"ab": {"x": 4}, "b": {"x": 4}}
    assert await behind("b") == {}


async def test_what_is_discarded_leaves_no_empty_folders(tmp_path: Path) -> None:
    store = SlideStore(str(tmp_path / "store"), tmp_path)
    for key in ("t/1/2/a", "t/1/3/b"):
        await store.put(key, b"")

    await store.discard("t/1/2/a")
    await store.discard("t/1/2/a")  # twice is as good as once

    assert not (tmp_path / "store/t/1/2").exists()
    assert await store.exists("t/1/3/b")


async def test_who_discards_does_not_get_in_the_way_of_who_writes(store: SlideStore) -> None:
    async def come_and_go(name: str) -> None:
        for _ in range(20):
            await store.put(f"t/1/{name}", b"")
            assert await store.exists(f"t/1/{name}")
            await store.discard(f"t/1/{name}")

    await asyncio.gather(*(come_and_go(name) for name in "abcd"))

    assert await store.keys_after("t", "", 9) == []
