"""The folder that holds all local state: private to its owner, and to one `eyepiece up` at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from server.commands.outcome import CommandError, ExitCode
from server.identity.api_keys import KEYS_FOLDER
from server.settings import Settings
from server.storage.local_folder import local_root
from server.storage.private_files import close_to_others

LOCK_FILE = "up.lock"


def folder_problem(data_dir: Path) -> str | None:
    """Why `data_dir` cannot be used, or None; a folder that is yet to be made is no problem."""
    existing = next(path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is not a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} is not writable for this user"
    return None


@contextmanager
def locked_data_folder(data_dir: Path) -> Iterator[Path]:
    """Makes the folder, mode 0700, and holds its lock; the kernel drops the lock when the process ends.

    Raises:
        CommandError: it cannot be a folder of ours, or another `up` holds it.
    """
    if problem := folder_problem(data_dir):
        raise CommandError(f"{problem}: choose another folder with --data-dir.", ExitCode.USAGE)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _open_lock(data_dir) as lock:
        if not _take(lock.fileno()):
            raise CommandError(
                f"Another `eyepiece up` (process {holder_of(data_dir)}) uses {data_dir}: stop it, "
                "or choose another folder with --data-dir.",
                ExitCode.USAGE,
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield data_dir


def private_folders(settings: Settings) -> list[Path]:
    """The folders whose content is for their owner only: the data folder, and the keys of a slide store on disk."""
    root = local_root(settings.store_url or str(settings.data_dir / "store"))
    return [settings.data_dir] if root is None else [settings.data_dir, root / KEYS_FOLDER]


def close_to_other_users(settings: Settings) -> str | None:
    """Closes what was made by hand, unpacked, or written by an older release; a sentence when anything was open.

    Raises:
        CommandError: it is another user's to close.
    """
    try:
        closed = sum(close_to_others(folder) for folder in private_folders(settings))
    except PermissionError as error:
        raise CommandError(
            f"{settings.data_dir} or the keys in the slide store can be read by other users, and this one may not "
            "change that: run `chmod -R go= FOLDER` as their owner, or choose another folder with --data-dir.",
            ExitCode.USAGE,
        ) from error
    if not closed:
        return None
    return f"Other users could read {closed} of what lies in {settings.data_dir}, or keys: now only this one can."


def holder_of(data_dir: Path) -> str | None:
    """The process id in a lock that is held now; None when nobody holds it, whatever the file says."""
    path = data_dir / LOCK_FILE
    if not path.exists() or not os.access(path, os.R_OK | os.W_OK):
        return None
    with path.open("r+") as lock:
        if _take(lock.fileno()):
            return None
        return lock.read().strip() or "unknown"


def _open_lock(data_dir: Path) -> IO[str]:
    return open(os.open(data_dir / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600), "r+")


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
