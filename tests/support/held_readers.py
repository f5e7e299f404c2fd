"""Readers that are told when to answer, in place of processes that parse slides."""

import threading
from pathlib import Path
from typing import Any, Self

from fastapi import FastAPI

from encoders.errors import ReaderDied
from encoders.types import SlideFacts
from server.api.parts import Parts


class HeldReader:
    """Answers when its `HeldReaders` says so; notes what it was asked for."""

    def __init__(self, owner: "HeldReaders", path: Path, folder: Path | None) -> None:
        self.owner = owner
        self.path = path
        self.folder = folder
        self.asked: list[Any] = []
        self.is_killed = False
        self.has_ended = False

    def __enter__(self) -> Self:
        try:
            self._wait(self.owner.open)
            if self.owner.refusal is not None:
                raise self.owner.refusal
        except BaseException:
            self.has_ended = True
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.has_ended = True

    def facts(self) -> SlideFacts:
        return SlideFacts("aperio", 1024, 768, 0.5, 20.0)

    def view_tile(self, level: int, column: int, row: int) -> bytes:
        self.asked.append((level, column, row))
        self._wait(self.owner.answer)
        return f"tile {level} {column} {row}".encode()

    def thumbnail(self, max_px: int, form: str) -> bytes:
        self.asked.append((max_px, form))
        self._wait(self.owner.answer)
        return b"x" * max_px

    def kill(self) -> None:
        self.is_killed = True

    def _wait(self, told: threading.Event) -> None:
        while not told.wait(0.005):
            if self.is_killed:
                break
        if self.is_killed:
            raise ReaderDied("The process that reads the slide ended unexpectedly; try again.")


class HeldReaders:
    """Starts them; `open` and `answer` let all of them go on."""

    def __init__(self, *, answering: bool = True) -> None:
        self.started: list[HeldReader] = []
        self.open = threading.Event()
        self.open.set()
        self.answer = threading.Event()
        if answering:
            self.answer.set()
        self.refusal: Exception | None = None
        self.nicenesses: list[int] = []

    def __call__(self, path: Path, limits: Any, *, folder: Path | None = None) -> HeldReader:
        self.nicenesses.append(limits.niceness)
        self.started.append(HeldReader(self, path, folder))
        return self.started[-1]

    @property
    def running(self) -> list[HeldReader]:
        """Those that have not ended."""
        return [reader for reader in self.started if not reader.has_ended]


def held_readers(app: FastAPI, *, answering: bool = True) -> HeldReaders:
    """In place of those that an app would start for viewers."""
    readers = HeldReaders(answering=answering)
    parts: Parts = app.state.parts
    parts.open_slides._start = readers  # type: ignore[assignment]  # no process stands behind it
    return readers
