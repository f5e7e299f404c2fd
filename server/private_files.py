"""Files that only their owner reads: secrets, and notes of `eyepiece up` to itself."""

import os
import secrets
from pathlib import Path


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
