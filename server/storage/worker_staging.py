"""A staging folder of each worker's own: what a killed worker leaves there goes when the next one starts on its host.

    staging/worker-<host>-<random>/
        lock           locked as long as its worker lives: the kernel lets go of it, whatever ends the worker
        <random> …     features that are not published yet, up to 3 GB of the largest slide

Without it they would lie in the shared folder until they are a day old. Only folders of the same host are removed:
some network file systems do not carry a lock to another one.
"""

import asyncio
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from server.storage.slide_store import SlideStore

_LOCK = "lock"
# Any time below a day, after which a folder in which nothing has changed is removed as abandoned.
_TOUCH_EVERY_S = 3_600.0


@asynccontextmanager
async def private_staging(store: SlideStore) -> AsyncIterator[None]:
    """Within the block the store stages in a folder of this process; first, what dead workers left in theirs goes.

    Where the file system knows no locks, the store stages where it did before.
    """
    shared, prefix = store.staging_dir, f"worker-{socket.gethostname()}-"
    for folder in shared.glob(f"{prefix}*"):
        await asyncio.to_thread(_remove_if_dead, folder)
    own = shared / f"{prefix}{uuid.uuid4().hex}"
    lock = _make_locked(store.new_staging_path(), own)
    if lock is None:
        yield
        return
    touching = asyncio.create_task(_touch_for_ever(lock))
    store.staging_dir = own
    try:
        yield
    finally:
        store.staging_dir = shared
        touching.cancel()
        await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)
        os.close(lock)


def _make_locked(draft: Path, own: Path) -> int | None:
    """The lock of the new folder `own`, which has its name only once it is locked; None when it cannot be."""
    draft.mkdir()
    lock = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(own)
    except OSError:
        os.close(lock)
        shutil.rmtree(draft, ignore_errors=True)
        return None
    return lock


def _remove_if_dead(folder: Path) -> None:
    with suppress(OSError):  # another worker removes it too, or its worker lives
        lock = os.open(folder / _LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


async def _touch_for_ever(lock: int) -> None:
    while True:
        await asyncio.sleep(_TOUCH_EVERY_S)
        os.utime(lock)
