"""Files and folders that only their owner reads: secrets, keys, the data folder, notes of `eyepiece up` to itself."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_secret(path: Path) -> str:
    """The secret in `path`, made of 256 random bits the first time; only its owner can read the file."""
    if not path.exists() or not path.read_text().strip():  # an empty one would mean: no password
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replaces `path` as a whole, readable by its owner only from its first moment on."""
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def open_to_others(folder: Path) -> list[Path]:
    """The folder itself and what lies directly in it, where group or others have any right; links are left out."""
    found = []
    for path in _with_content(folder):
        with suppress(FileNotFoundError):  # a draft of somebody's who writes here too
            if path.lstat().st_mode & _OTHERS:
                found.append(path)
    return found


def close_to_others(folder: Path) -> int:
    """Take every right from group and others, of the folder and of what lies directly in it; of how many.

    Raises:
        PermissionError: they are another user's.
    """
    found = open_to_others(folder)
    for path in found:
        with suppress(FileNotFoundError):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
    return len(found)


def _with_content(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield folder
        yield from (path for path in folder.iterdir() if not path.is_symlink())
