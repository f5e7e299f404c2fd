"""The log of one component: what its processes print, through a pipe, into files that are changed while they run.

    processes ──pipe──► a thread of the supervisor ──► api.log → api.log.1 → … → api.log.4

A process that had the file open would go on writing into the one that was put aside, and copying it away would lose
what is written meanwhile. Files change between two lines; only a line longer than a whole file is cut.
"""

import contextlib
import fcntl
import os
import select
import struct
import termios
import threading
import time
from pathlib import Path

FILE_BYTES = 16 * 2**20
OLDER_FILES = 4
_READ_BYTES = 64 * 1024
_CATCH_UP_S = 2.0
_LOOK_EVERY_S = 0.002


class ComponentLog:
    """`path` and at most `older_files` beside it, each about `file_bytes` long; what cannot be written is counted."""

    def __init__(self, path: Path, file_bytes: int = FILE_BYTES, older_files: int = OLDER_FILES) -> None:
        self.path = path
        self._file_bytes = file_bytes
        self._older_files = older_files
        self._lock = threading.Lock()
        self._pipes: list[int] = []
        self._lost_bytes = 0
        self._is_at_line_start = _ends_line(path)

    def open_pipe(self) -> int:
        """The end for a process to write into; close it here once the process has it."""
        with contextlib.suppress(OSError), open(self.path, "ab", opener=_private):
            pass  # a log that is still empty can be looked at
        reading, writing = os.pipe()
        self._pipes.append(reading)
        threading.Thread(target=self._copy, args=(reading,), daemon=True, name=f"log-{self.path.stem}").start()
        return writing

    def catch_up(self) -> None:
        """Returns when all that was printed so far is in the file, or cannot be brought there soon."""
        deadline = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < deadline:
            with self._lock:  # a chunk that was read is written under the same lock
                if not any(map(_waiting_bytes, self._pipes)):
                    return
            time.sleep(_LOOK_EVERY_S)

    def _copy(self, reading: int) -> None:
        readable = select.poll()
        readable.register(reading, select.POLLIN)
        while True:
            readable.poll()
            with self._lock:
                chunk = os.read(reading, _READ_BYTES)
                if not chunk:
                    self._pipes.remove(reading)
                    os.close(reading)
                    return
                try:
                    self._write(chunk)
                except OSError:  # a full disk must not stop what prints
                    self._lost_bytes += len(chunk)

    def _write(self, chunk: bytes) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size and size + len(chunk) > self._file_bytes:
            rest_of_line = 0 if self._is_at_line_start else chunk.find(b"\n") + 1
            if self._is_at_line_start or rest_of_line or size >= 2 * self._file_bytes:
                self._append(chunk[:rest_of_line])
                self._put_aside()
                chunk = chunk[rest_of_line:]
        if self._lost_bytes:
            self._append(b"... about %d bytes of this log could not be written\n" % self._lost_bytes)
            self._lost_bytes = 0
        self._append(chunk)

    def _append(self, text: bytes) -> None:
        if not text:
            return
        with open(self.path, "ab", buffering=0, opener=_private) as file:
            left = memoryview(text)
            while left:
                left = left[file.write(left) :]
        self._is_at_line_start = text.endswith(b"\n")

    def _put_aside(self) -> None:
        for number in range(self._older_files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _waiting_bytes(pipe: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count


def _ends_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
