"""The audit log of this process: lines in files that are only appended to, one chain for each process.

    AUDIT_DIR/<day>-<writer>.jsonl      the lines
    AUDIT_DIR/<writer>.head             how far the chain goes: number and hash of its last line

A line is on the disk (fdatasync) when `write` returns, so neither a killed process nor a power cut loses one that was
acknowledged. Requests that come while the disk is busy share the next fdatasync. The chain goes on in a new file each
day (UTC). Behind its lines the head is written, which misses what is cut off at the end; and soon after the first line,
then every hour, an anchor in the slide store, which misses it too when the head was changed as well.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path

import structlog

from server.errors import AuditUnavailable, ServerError
from server.identity.audit_chain import BEGIN, END, NOTHING, AuditEvent, link
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore

ANCHORS_FOLDER = "audit-anchors"
_ANCHOR_EVERY_S = 3600.0
_LOOK_EVERY_S = 30.0
# A disk that is full is not asked with every request.
_RETRY_AFTER_S = 1.0

log = structlog.get_logger(__name__)
_Waiting = tuple[bytes, int, str, "asyncio.Future[int]"]


class AuditLog:
    """Appends lines. Only this process writes to its files. Lives on one event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "audit")
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self._broken_until_s = 0.0
        self._begin_chain()

    def _begin_chain(self) -> None:
        self.writer = secrets.token_hex(8)
        self._n, self._hash = 0, NOTHING
        self._anchored_n, self._anchored_at_s = 0, -_ANCHOR_EVERY_S
        self._files = _ChainFiles(self._folder, self.writer)

    async def write(self, event: AuditEvent) -> int:
        """Its number in the chain; the event is on the disk when this returns.

        Raises:
            AuditUnavailable: it cannot be written; what it tells of must be neither done nor answered.
        """
        if time.monotonic() < self._broken_until_s:
            raise _unavailable()
        if self._n == 0:
            self._add(AuditEvent(at=event.at, action=BEGIN))
        written = self._add(event)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await written

    def _add(self, event: AuditEvent) -> "asyncio.Future[int]":
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        line, self._hash = link(event, self.writer, self._n, self._hash)
        self._waiting.append((line, self._n, self._hash, written))
        self._n += 1
        return written

    async def _flush(self) -> None:
        """Bring what waits to the disk, and then what has come meanwhile."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            content = b"".join(line for line, _, _, _ in batch)
            _, n, digest, _ = batch[-1]
            try:
                await loop.run_in_executor(self._thread, self._files.append, content, n, digest)
            except OSError as error:
                self._give_up(batch, error)
                return
            for _, number, _, written in batch:
                if not written.done():  # its request was cancelled
                    written.set_result(number)

    def _give_up(self, batch: Sequence[_Waiting], error: OSError) -> None:
        """Lines may have been written in part: the chain ends here, and another one begins with the next line."""
        log.error("audit_not_written", error=type(error).__name__)
        failed, self._waiting = [*batch, *self._waiting], []
        self._files.close()
        self._broken_until_s = time.monotonic() + _RETRY_AFTER_S
        self._begin_chain()
        for _, _, _, written in failed:
            if not written.done():
                written.set_exception(_unavailable())
                written.exception()  # asyncio would complain of that of the first line, which nobody waits for

    async def run(self, store: SlideStore) -> None:
        """Anchor the chain soon after its first line, and then every hour in which it has grown."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if time.monotonic() - self._anchored_at_s >= _ANCHOR_EVERY_S:
                await self.anchor(store)

    async def anchor(self, store: SlideStore) -> None:
        """Write down elsewhere how far the chain goes. A store that does not answer is asked again later."""
        files, on_disk = self._files, self._files.on_disk
        if on_disk is None or on_disk[0] < self._anchored_n:
            return
        n, digest = on_disk
        try:
            await store.create(f"{ANCHORS_FOLDER}/{files.writer}/{n:012d}", digest.encode())
        except ServerError as error:
            log.warning("audit_not_anchored", code=error.code)
            return
        if files is self._files:
            self._anchored_n, self._anchored_at_s = n + 1, time.monotonic()

    async def aclose(self, store: SlideStore) -> None:
        """End the chain in order, and anchor its end."""
        if self._n > 0:
            with suppress(AuditUnavailable):
                await self.write(AuditEvent(at=now(), action=END))
            await self.anchor(store)
        self._thread.shutdown()
        self._files.close()


class _ChainFiles:
    """The files of one chain. `append` blocks and is for one thread."""

    def __init__(self, folder: Path, writer: str) -> None:
        self.writer = writer
        self.on_disk: tuple[int, str] | None = None
        self._folder = folder
        self._day: date | None = None
        self._lines = self._head = -1

    def append(self, content: bytes, n: int, digest: str) -> None:
        """Whole lines, the last of which has this number and hash.

        Raises:
            OSError: they are not on the disk, or not all of them.
        """
        self._open(now().date())
        if os.write(self._lines, content) < len(content):
            raise OSError("the disk is full")
        os.fdatasync(self._lines)
        self._write_head(n, digest)
        self.on_disk = n, digest

    def _write_head(self, n: int, digest: str) -> None:
        # Behind the lines, and not synchronised: after a power cut it may lie behind them, never before.
        os.pwrite(self._head, f"{n:020d} {digest}\n".encode(), 0)

    def _open(self, day: date) -> None:
        if day == self._day:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{day.isoformat()}-{self.writer}.jsonl"
        lines = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._lines >= 0:
            os.close(self._lines)
        self._lines, self._day = lines, day
        if self._head < 0:
            self._head = os.open(self._folder / f"{self.writer}.head", os.O_WRONLY | os.O_CREAT, 0o600)
        _sync_folder(self._folder)

    def close(self) -> None:
        """Of files without a line nothing is left: a full disk shall not be covered with them."""
        for opened in (self._lines, self._head):
            if opened >= 0:
                os.close(opened)
        if self._day is not None and self.on_disk is None:
            lines = self._folder / f"{self._day.isoformat()}-{self.writer}.jsonl"
            with suppress(OSError):
                if lines.stat().st_size == 0:
                    lines.unlink()
                (self._folder / f"{self.writer}.head").unlink()
        self._lines = self._head = -1


def _sync_folder(folder: Path) -> None:
    """A file's name is on the disk, too."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _unavailable() -> AuditUnavailable:
    return AuditUnavailable("The audit log cannot be written, so nothing is done; tell the operator.", retry_after_s=30)
