"""What a worker stages goes with it, however it ends; what a living one stages stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_parts import until

from server.storage.slide_store import SlideStore
from server.storage.worker_staging import private_staging

WORKER = """
import asyncio, sys
from server.storage.slide_store import SlideStore
from server.storage.worker_staging import private_staging

async def work():
    store = SlideStore(sys.argv[1], None)
    async with private_staging(store):
        store.new_staging_path().write_bytes(b"features")
        print("staged", flush=True)
        await asyncio.sleep(600)

asyncio.run(work())
"""


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore(str(tmp_path / "store"), tmp_path)


@pytest.fixture
def worker(store: SlideStore) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has staged a file."""
    with subprocess.Popen([sys.executable, "-c", WORKER, str(store.local_root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"staged\n"
        yield process
        process.kill()


def staged(folder: Path) -> list[str]:
    """The contents of the files that are staged, locks apart."""
    return [path.read_text() for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


async def test_what_a_killed_worker_left_goes_when_the_next_one_starts(
    store: SlideStore, worker: "subprocess.Popen[bytes]"
) -> None:
    shared = store.staging_dir
    worker.kill()
    worker.wait()
    assert staged(shared) == ["features"]

    async with private_staging(store):
        assert staged(shared) == []

    assert list(shared.iterdir()) == []


async def test_what_a_living_worker_stages_is_left_alone(store: SlideStore, worker: "subprocess.Popen[bytes]") -> None:
    shared = store.staging_dir
    async with private_staging(store):
        store.new_staging_path().write_text("ours")
        assert sorted(staged(shared)) == ["features", "ours"]

    assert staged(shared) == ["features"]


async def test_a_worker_of_another_host_is_left_alone_dead_or_not(
    store: SlideStore, worker: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.kill()
    worker.wait()
    monkeypatch.setattr("socket.gethostname", lambda: "another")

    async with private_staging(store):
        assert staged(store.staging_dir.parent) == ["features"]


async def test_an_upload_that_is_being_staged_is_left_alone(store: SlideStore) -> None:
    upload = store.new_staging_path()
    upload.mkdir()

    async with private_staging(store):
        assert upload.is_dir()


async def test_without_locks_the_shared_folder_does(store: SlideStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    shared = store.staging_dir

    async with private_staging(store):
        assert store.staging_dir == shared
        assert list(shared.iterdir()) == []


async def test_the_folder_of_a_worker_that_has_nothing_to_do_is_not_taken_for_abandoned(
    store: SlideStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.storage.worker_staging._TOUCH_EVERY_S", 0.01)
    shared = SlideStore(str(store.local_root), Path())
    async with private_staging(store):
        for path in (store.staging_dir, store.staging_dir / "lock"):
            os.utime(path, (1, 1))
        await until(lambda: (store.staging_dir / "lock").stat().st_mtime > 1)

        assert shared.remove_abandoned() == 0
        assert store.staging_dir.is_dir()


async def test_a_worker_that_is_asked_to_leave_leaves_nothing(
    store: SlideStore, worker: "subprocess.Popen[bytes]"
) -> None:
    worker.send_signal(signal.SIGINT)
    worker.wait()

    assert list(store.staging_dir.iterdir()) == []
