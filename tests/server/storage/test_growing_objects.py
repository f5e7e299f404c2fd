"""What has come of an upload, once in a local folder and once behind the interface of a remote store."""

import asyncio
from pathlib import Path

import pytest

from server.storage import growing_objects
from server.storage.growing_objects import GrowingObject
from server.storage.slide_store import SlideStore

KEY = "tenants/a/uploads/m/f/data"


@pytest.fixture(params=["local", "remote"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlideStore:
    monkeypatch.setattr(growing_objects, "_SEGMENT_BYTES", 4)
    store = SlideStore(str(tmp_path / "store") if request.param == "local" else "memory:///", tmp_path / "scratch")
    await store.put("tenants/a/uploads/m/f/upload.json", b"{}")
    return store


@pytest.fixture
def grown(store: SlideStore) -> GrowingObject:
    return store.growing(KEY)


def content(grown: GrowingObject) -> bytes:
    return b"".join(grown.read(0, grown.size_bytes()))


def test_it_is_what_was_written_one_behind_the_other(grown: GrowingObject, store: SlideStore) -> None:
    assert grown.size_bytes() == 0
    grown.write(0, b"0123456789")
    grown.keep()
    grown.write(10, b"abc")

    assert store.growing(KEY).size_bytes() == 13
    assert content(store.growing(KEY)) == b"0123456789abc"
    assert b"".join(grown.read(3, 11)) == b"3456789a"


def test_what_was_cut_is_written_anew(grown: GrowingObject) -> None:
    grown.write(0, b"0123456789")
    grown.write(10, b"wrong")
    grown.cut(10)
    grown.cut(12)
    assert content(grown) == b"0123456789"
    grown.write(10, b"right")
    assert content(grown) == b"0123456789right"


def test_it_is_brought_to_local_disk_and_removed(grown: GrowingObject, store: SlideStore) -> None:
    grown.write(0, b"0123456789")
    path = store.new_staging_path()
    grown.bring(path)
    grown.remove()
    grown.remove()

    assert path.read_bytes() == b"0123456789"
    assert grown.size_bytes() == 0


def test_a_segment_that_a_late_writer_leaves_changes_nothing(tmp_path: Path) -> None:
    """Two writers send what the client has there; the second one's segments begin where the first one's do not end."""
    grown = SlideStore("memory:///", tmp_path / "scratch").growing(KEY)
    grown.write(0, b"0123")
    grown.write(2, b"23")
    grown.write(4, b"4")
    grown.write(4, b"45")
    assert content(grown) == b"012345"
    grown.write(9, b"behind a gap")
    assert grown.size_bytes() == 6


async def test_removing_all_of_an_upload_leaves_nothing(grown: GrowingObject, store: SlideStore) -> None:
    await asyncio.to_thread(grown.write, 0, b"0123456789")
    await store.delete_folder("tenants/a/uploads/m")
    assert grown.size_bytes() == 0
    assert await store.folders("tenants/a/uploads") == []


def test_it_takes_a_staged_file_in_place_of_all_it_had(grown: GrowingObject, store: SlideStore) -> None:
    grown.write(0, b"a longer text than the other")
    path = store.new_staging_path()
    path.write_bytes(b"0123456789")
    grown.take(path)

    assert content(store.growing(KEY)) == b"0123456789"
