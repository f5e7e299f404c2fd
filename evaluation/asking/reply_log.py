"""An append-only log of replies: one JSON object a line, on disk before the next is asked for.

A process may be killed at any moment. A last line without its end is cut off when the log is opened again, and what it
was about is asked once more. The last line of a key counts; failures stay in the log and are asked again by the next
run.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from evaluation.errors import RunMismatch


class ReplyLog:
    """An open log. `latest` has the last line of each key; `cut_bytes` were cut off its end."""

    def __init__(self, descriptor: int, latest: dict[str, dict[str, Any]], cut_bytes: int) -> None:
        self._descriptor = descriptor
        self.latest = latest
        self.cut_bytes = cut_bytes

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Creates or continues the log; one process at a time.

        Raises:
            RunMismatch: another process writes to it, or a line in its middle is not JSON.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunMismatch(f"Another process writes to {path.name}: wait for it, or end it.") from error
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            os.ftruncate(descriptor, len(whole))
            _sync_folder(path.parent)
            yield cls(descriptor, latest_lines(whole, path.name), len(content) - len(whole))
        finally:
            os.close(descriptor)

    def append(self, line: dict[str, Any]) -> None:
        """Writes a line with its `key`; it is on disk when this returns."""
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        written = os.write(self._descriptor, data)
        while written < len(data):
            written += os.write(self._descriptor, data[written:])
        os.fsync(self._descriptor)
        self.latest[line["key"]] = line


def read_log(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each key; a last line without its end is passed over. {} without a file.

    Raises:
        RunMismatch: a line is not JSON.
    """
    content = path.read_bytes() if path.is_file() else b""
    return latest_lines(content[: content.rfind(b"\n") + 1], path.name)


def latest_lines(content: bytes, name: str) -> dict[str, dict[str, Any]]:
    """The last line of each key, in the order of first lines."""
    latest: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            latest[row["key"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise RunMismatch(f"{name}, line {number} was not written by an evaluation: mend or remove it.") from error
    return latest


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
