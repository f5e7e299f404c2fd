"""`eyepiece upload --watch FOLDER`: sends what a scanner writes there, once it is written to its end."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.commands.outcome import CommandError, ExitCode
from server.commands.slide_files import LITTER, SlideFiles, slide_files
from server.commands.upload_notes import state_folder
from server.storage.private_files import write_private

# Names and times of a slide's files, as they were when they were looked at.
Look = tuple[tuple[str, int, int], ...]


@dataclass
class WatchedFolder:
    """Slides in a folder: each file, each MIRAX index with its folder, each folder of DICOM. A slide is `settled` when
    no file of it has changed, come or gone for `settle_s`."""

    folder: Path
    settle_s: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Path, tuple[Look, float]] = field(default_factory=dict)

    def settled(self) -> Iterator[tuple[Path, Look]]:
        """Slides that nobody writes to any more, by their names; what is still growing is left alone."""
        now, there = self.clock(), set[Path]()
        for path in self._entries():
            look = _look(path)
            if look is None:
                continue
            there.add(path)
            before, since = self._seen.get(path, (None, now))
            if look != before:
                self._seen[path] = (look, now)
            elif now - since >= self.settle_s:
                yield path, look
        for gone in self._seen.keys() - there:
            del self._seen[gone]

    def _entries(self) -> list[Path]:
        """A MIRAX slide is its index; the folder beside it belongs to that."""
        entries = sorted(self.folder.iterdir())
        indexes = {path.with_suffix("") for path in entries if path.suffix.lower() == ".mrxs"}
        return [
            path
            for path in entries
            if path not in indexes and not path.name.startswith(".") and path.name.lower() not in LITTER
        ]


class SentNotes:
    """What was sent of a folder to a server, or refused, so that it is not sent again by the next run."""

    def __init__(self, server: str, folder: Path, state: Path | None = None) -> None:
        name = hashlib.sha256(f"{server}\n{folder.resolve()}".encode(errors="replace")).hexdigest()[:32]
        self._path = (state or state_folder()) / "watched" / f"{name}.json"
        self._sent: dict[str, str] = {}
        with suppress(OSError, ValueError):
            self._sent = dict(json.loads(self._path.read_text()))

    def has(self, path: Path, look: Look) -> bool:
        """Whether the slide was sent as it is now."""
        return self._sent.get(_key(path.name)) == _key(repr(look))

    def add(self, path: Path, look: Look) -> None:
        """The slide was sent, or refused for good."""
        self._sent[_key(path.name)] = _key(repr(look))
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self._path, json.dumps(self._sent))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def watch(
    watched: WatchedFolder,
    sent: SentNotes,
    send: Callable[[Path], dict[str, Any]],
    on_sent: Callable[[Path, dict[str, Any]], None],
    on_refused: Callable[[Path, CommandError], None],
    wait: Callable[[], bool],
) -> None:
    """Send every slide that has settled, again and again while `wait` says so. A slide that is refused is said once; a
    server that is away is asked again.

    Raises:
        CommandError: the folder is not there.
    """
    if not watched.folder.is_dir():
        raise CommandError(f"{watched.folder} is not a folder: name the one that slides come into.", ExitCode.USAGE)
    while True:
        for path, look in watched.settled():
            if sent.has(path, look):
                continue
            try:
                slide = send(path)
            except CommandError as error:
                on_refused(path, error)
                if error.exit_code == ExitCode.UNREACHABLE or error.retry_after_s is not None:
                    break  # everything else would fail alike; the next look tries it again
                sent.add(path, look)
                continue
            sent.add(path, look)
            on_sent(path, slide)
        if not wait():
            return


def _look(path: Path) -> Look | None:
    """The slide's files as they are; None when it cannot be looked at yet: half a slide, or one that goes away."""
    try:
        found: SlideFiles = slide_files(path)
        stats = {name: file.stat() for name, file in sorted(found.files.items())}
    except (CommandError, OSError):
        return None
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
