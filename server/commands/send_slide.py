"""Sends a slide's files over /v1/uploads: several at once, each from where it broke off, now or in an earlier run."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.slide_files import SlideFiles
from server.commands.upload_notes import UploadNotes

_PIECE_BYTES = 2**20
# In a row, without a byte getting through in between: five minutes.
_MOST_TRIES = 12
_LONGEST_WAIT_S = 30.0
# The server is there and cannot take it now, or another request still has the upload.
_LATER = frozenset(
    {
        *("overloaded", "upload_locked", "wrong_offset", "body_too_slow", "draining", "too_many_connections"),
        *("storage_unavailable", "queue_unavailable", "internal_error"),
        None,  # a proxy's own words
    }
)
_GONE = frozenset({"not_found", "upload_gone"})

OnBytes = Callable[[str, int], None]


class Stopped(Exception):
    """Ctrl-C in the main thread: senders end where they are."""


@dataclass(frozen=True)
class SlideSender:
    """`at_once` files at a time. `on_bytes` gets a file's name and how many bytes of it the server has."""

    client: ApiClient
    on_bytes: OnBytes
    at_once: int = 3
    # What is said of the slide, as the metadata of an upload has it.
    about: Mapping[str, str] = field(default_factory=dict)
    # Until the event, or so many seconds.
    wait: Callable[[threading.Event, float], object] = threading.Event.wait

    def send(self, found: SlideFiles, notes: UploadNotes) -> dict[str, Any]:
        """All files of a slide; the Slide that they became.

        Raises:
            CommandError: refused, unreachable for minutes, or a file that changed while it was sent.
        """
        group = notes.group() if len(found.files) > 1 else None
        stop = threading.Event()
        slide_ids: list[str | None] = []
        try:
            with ThreadPoolExecutor(self.at_once, thread_name_prefix="send") as threads:
                running: list[Future[str | None]] = [
                    threads.submit(self._send_file, _File(name, file, group, notes, stop))
                    for name, file in found.files.items()
                ]
                try:
                    slide_ids = [future.result() for future in as_completed(running)]
                except BaseException:
                    stop.set()
                    threads.shutdown(wait=True, cancel_futures=True)
                    raise
            slide = self._made(group, len(found.files), slide_ids)
        except CommandError as error:
            if error.exit_code == ExitCode.REFUSED and error.problem_code not in _LATER:
                notes.forget()
            raise
        notes.forget()
        return slide

    def _made(self, group: str | None, count: int, slide_ids: list[str | None]) -> dict[str, Any]:
        if group is not None:
            return self.client.finish_slide(group, count)
        if slide_ids[0] is None:
            raise CommandError("The server took the file and made no slide of it; upload it again.", ExitCode.FAILED)
        return self.client.slide(slide_ids[0])

    def _send_file(self, file: "_File") -> str | None:
        """The slide's id, where the file is a whole one."""
        tries, reached = 0, -1
        while True:
            try:
                upload, offset, slide_id = self._begin(file)
                while slide_id is None and offset < file.stat.st_size:
                    offset, slide_id = self._append(file, upload, offset)
                file.require_unchanged()
                return slide_id
            except CommandError as error:
                may_pass = error.exit_code == ExitCode.UNREACHABLE or error.problem_code in _LATER
                tries = 0 if file.sent > reached else tries + 1
                reached = max(reached, file.sent)
                if not may_pass or tries >= _MOST_TRIES or file.stop.is_set():
                    raise
                self.wait(file.stop, max(error.retry_after_s or 0, min(2.0**tries / 2, _LONGEST_WAIT_S)))

    def _begin(self, file: "_File") -> tuple[str, int, str | None]:
        """An upload of the file, how far it has come, and the slide that it is already."""
        upload = file.notes.find(file.name, file.stat)
        if upload is not None:
            try:
                offset, slide_id = self.client.upload_offset(upload)
                self._heard(file, offset)
                return upload, offset, slide_id
            except CommandError as error:
                if error.problem_code not in _GONE:
                    raise
        upload = self.client.create_upload(file.stat.st_size, {**self.about, **file.metadata()})
        file.notes.keep(file.name, file.stat, upload)
        self._heard(file, 0)
        return upload, 0, None

    def _append(self, file: "_File", upload: str, offset: int) -> tuple[int, str | None]:
        def pieces() -> Iterator[bytes]:
            sent = offset
            with file.path.open("rb") as opened:
                opened.seek(offset)
                while sent < file.stat.st_size:
                    if file.stop.is_set():
                        raise Stopped
                    piece = opened.read(min(_PIECE_BYTES, file.stat.st_size - sent))
                    if not piece:
                        raise _changed(file.name)
                    yield piece
                    sent += len(piece)
                    self._heard(file, sent)

        return self.client.append_to_upload(upload, offset, pieces(), file.stat.st_size - offset)

    def _heard(self, file: "_File", sent: int) -> None:
        file.sent = sent
        self.on_bytes(file.name, sent)


class _File:
    """A file that is being sent."""

    def __init__(self, name: str, path: Path, group: str | None, notes: UploadNotes, stop: threading.Event) -> None:
        self.name = name
        self.path = path
        self.notes = notes
        self.stop = stop
        self.stat = path.stat()
        self.sent = 0
        self._group = group

    def metadata(self) -> Mapping[str, str]:
        """What the server is told of it."""
        name = self.name.encode(errors="replace").decode()  # a name may hold bytes that are not UTF-8
        return {"filename": name} if self._group is None else {"slide": self._group, "path": name}

    def require_unchanged(self) -> None:
        """Raises CommandError when the file is not what was sent."""
        now = os.stat(self.path)
        if (now.st_size, now.st_mtime_ns) != (self.stat.st_size, self.stat.st_mtime_ns):
            raise _changed(self.name)


def _changed(name: str) -> CommandError:
    return CommandError(
        f"{name} changed while it was sent: upload the slide again when it is written to its end.", ExitCode.FAILED
    )
