"""One file seen through a child process that parses it; what slides and features files have in common."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from encoders.tiling.isolation.reader_channel import ReaderChannel, ReplyT
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_protocol import Open


class FileProcess(ABC):
    """A context manager: entering starts the child and opens the file, leaving kills and reaps."""

    def __init__(
        self,
        path: Path,
        limits: ReaderLimits,
        command: Sequence[str],
        replies: TypeAdapter[Any],
        folder: Path | None = None,
    ) -> None:
        """The child sees `path` alone, or all that is in `folder`, from which it then reads as many files as it likes.

        `path` lies below `folder`, which holds nothing but the slide's own files, or links to them.
        """
        self._path = path.absolute()
        self._folder = None if folder is None else folder.absolute()
        self._limits = limits
        self._command = command
        self._replies = replies

    def __enter__(self) -> Self:
        with ExitStack() as owned:
            inherited = self._make_inherited(owned)
            limits = self._limits
            self._channel = ReaderChannel(self._command, limits.deadline_s, self._replies, inherited, limits.niceness)
            owned.enter_context(closing(self._channel))
            self._open()
            self._owned = owned.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, None once it is reaped."""
        return self._channel.pid

    def kill(self) -> None:
        """Ends the child from any thread: a call that runs in another one raises ReaderDied, and so do later ones."""
        if hasattr(self, "_channel"):  # else there is none yet
            self._channel.kill()

    @abstractmethod
    def _open(self) -> None:
        """Opens the file by `_ask_to_open` and checks the answer."""

    def _make_inherited(self, owned: ExitStack) -> tuple[int, ...]:
        """Descriptors that the child is to have; `owned` closes them when the process is left."""
        return ()

    def _ask_to_open(self, expected: type[ReplyT], *, max_body_bytes: int = 0) -> tuple[ReplyT, bytearray]:
        folder = None if self._folder is None else os.fsencode(self._folder)
        request = Open(path=os.fsencode(self._path), folder=folder, limits=self._limits, parent_pid=os.getpid())
        return self._channel.ask(request, expected, max_body_bytes=max_body_bytes)
