"""Where unfinished uploads of this machine can be gone on with, so that Ctrl-C costs nothing.

One file for each slide and server, in the user's state folder. Its name is a hash, and so is what it holds of the names
of the slide's files: they can be PHI.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from server.storage.private_files import write_private


@dataclass(frozen=True)
class FileNote:
    """An upload and the file as it was when that began: another size or time is another file."""

    upload: str
    size_bytes: int
    changed_ns: int


class UploadNotes:
    """Of one slide. A home that cannot be written to means: nothing is remembered, and nothing else goes wrong."""

    def __init__(self, server: str, slide: Path, folder: Path | None = None) -> None:
        name = hashlib.sha256(f"{server}\n{slide.resolve()}".encode(errors="replace")).hexdigest()[:32]
        self._path = (folder or state_folder()) / "uploads" / f"{name}.json"
        self._notes: dict[str, FileNote] = {}
        self._group = ""
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            content = json.loads(self._path.read_text())
            self._notes = {key: FileNote(**note) for key, note in content["files"].items()}
            self._group = str(content["slide"])

    def group(self) -> str:
        """What the uploads of the slide's files have in common; the same in every run until the slide is there."""
        self._group = self._group or os.urandom(16).hex()
        return self._group

    def find(self, name: str, file: os.stat_result) -> str | None:
        """The upload of the slide's file `name`, if the file is still what it was."""
        note = self._notes.get(_key(name))
        same = note is not None and (note.size_bytes, note.changed_ns) == (file.st_size, file.st_mtime_ns)
        return note.upload if note is not None and same else None

    def keep(self, name: str, file: os.stat_result, upload: str) -> None:
        """An upload has begun."""
        self._notes[_key(name)] = FileNote(upload, file.st_size, file.st_mtime_ns)
        content = {"slide": self._group, "files": {key: asdict(note) for key, note in self._notes.items()}}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self._path, json.dumps(content))

    def forget(self) -> None:
        """The slide is there, or can never be."""
        self._notes, self._group = {}, ""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def state_folder() -> Path:
    """Where this user's programs keep what they need to go on (XDG)."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if given else Path.home() / ".local" / "state") / "eyepiece"


def _key(name: str) -> str:
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]
