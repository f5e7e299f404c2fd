"""`eyepiece upload --watch`: what still grows is left alone, and nothing is sent twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.commands.outcome import CommandError, ExitCode
from server.commands.watch_folder import SentNotes, WatchedFolder, watch


class Watching:
    """A folder that is looked at again after each of `steps`, ten seconds later."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.state = state
        self.now = 0.0
        self.sent: list[str] = []
        self.refused: list[str] = []
        self.error: CommandError | None = None

    def look(self, *steps: Callable[[], object]) -> None:
        left = list(steps)

        def wait() -> bool:
            self.now += 10
            if not left:
                return False
            left.pop(0)()
            return True

        notes = SentNotes("http://eyepiece.test", self.folder, self.state)
        watched = WatchedFolder(self.folder, 15, lambda: self.now)
        watch(watched, notes, self._send, lambda *_: None, lambda path, _: self.refused.append(path.name), wait)

    def _send(self, path: Path) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.sent.append(path.name)
        return {"id": "a" * 64}


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    (tmp_path / "scans").mkdir()
    return Watching(tmp_path / "scans", tmp_path / "state")


def nothing() -> None:
    """Ten seconds pass."""


def grow(path: Path) -> Callable[[], object]:
    return lambda: path.write_bytes(b"x" * (path.stat().st_size + 1 if path.exists() else 1))


def test_a_file_is_sent_when_it_has_not_changed_for_a_while(watching: Watching) -> None:
    slide = watching.folder / "a.svs"

    watching.look(grow(slide), grow(slide), grow(slide), nothing)
    assert watching.sent == []

    watching.look(nothing, nothing)
    assert watching.sent == ["a.svs"]


def test_nothing_is_sent_twice_unless_it_changes(watching: Watching) -> None:
    slide = watching.folder / "a.svs"
    watching.look(grow(slide), nothing, nothing, nothing, nothing)
    watching.look(nothing, nothing, nothing)  # the next run
    assert watching.sent == ["a.svs"]

    watching.look(grow(slide), nothing, nothing, nothing)
    assert watching.sent == ["a.svs", "a.svs"]


def test_a_slide_of_several_files_waits_for_all_of_them(watching: Watching) -> None:
    index, inner = watching.folder / "m.mrxs", watching.folder / "m"

    def begin() -> None:
        inner.mkdir()
        index.write_bytes(b"x")

    watching.look(begin, grow(inner / "Data0000.dat"), grow(inner / "Data0001.dat"), nothing)
    assert watching.sent == []
    watching.look(nothing, nothing)
    assert watching.sent == ["m.mrxs"]


def test_what_is_refused_is_said_once_and_a_server_that_is_away_is_asked_again(watching: Watching) -> None:
    slide = watching.folder / "a.svs"
    watching.error = CommandError("No slide.", ExitCode.REFUSED, "unsupported_format")
    watching.look(grow(slide), nothing, nothing, nothing, nothing)
    assert watching.refused == ["a.svs"]

    watching.error = CommandError("Nothing answers.", ExitCode.UNREACHABLE)
    watching.look(grow(slide), nothing, nothing, nothing)
    assert watching.refused == ["a.svs"] * 3
    watching.error = None
    watching.look(nothing, nothing)
    assert watching.sent == ["a.svs"]


def test_a_folder_that_is_not_there_is_said(watching: Watching) -> None:
    watching.folder.rmdir()
    with pytest.raises(CommandError, match="is not a folder"):
        watching.look()
