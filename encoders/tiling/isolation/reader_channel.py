"""A child process and the two pipes to it: frames out, frames in before a deadline. Knows nothing of slides."""

import fcntl
import logging
import os
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from encoders.errors import ReaderDied
from encoders.tiling.isolation.lower_priority import lower_priority
from encoders.tiling.isolation.reader_protocol import Failed, Message, frame_head, read_frame

ReplyT = TypeVar("ReplyT", bound=Message)

log = logging.getLogger(__name__)
# A megabyte instead of 64 KiB: fewer wake-ups per batch. The kernel may grant less.
_PIPE_BYTES = 2**20


def warn_of_refused_limits(degraded: Sequence[str]) -> None:
    """Tell the operator that a slide is parsed less isolated than it should be. Only how many limits were refused:
    the sentences come from a process that has opened the slide."""
    if degraded:
        log.warning(
            "The platform refuses some limits of the processes that parse slides (see SECURITY.md): %d", len(degraded)
        )


class ReaderChannel:
    """Starts the child. Whatever goes wrong with it kills it, is raised as ReaderDied, and so is every later call."""

    def __init__(
        self,
        command: Sequence[str],
        deadline_s: float,
        replies: TypeAdapter[Any],
        inherited: Sequence[int] = (),
        niceness: int = 0,
    ) -> None:
        """`replies` is what this kind of child may say, `Failed` among it; it keeps the descriptors in `inherited`.

        `niceness` as in ReaderLimits.
        """
        self._deadline_s = deadline_s
        self._replies = replies
        self._child: subprocess.Popen[bytes] | None = _start_child(command, inherited)
        lower_priority(self._child.pid, niceness)

    @property
    def pid(self) -> int | None:
        """The child's process id, None once it is reaped."""
        return self._child.pid if self._child else None

    def send(self, request: Message) -> None:
        """One frame without a body; a child that does not read it until the deadline is ended too."""
        until = time.monotonic() + self._deadline_s
        try:
            self._write(frame_head(request), until)
        except BrokenPipeError:
            raise self._dead("The process that reads the slide ended unexpectedly; try again.") from None

    def ask(self, request: Message, expected: type[ReplyT], *, max_body_bytes: int = 0) -> tuple[ReplyT, bytearray]:
        """Sends a request and receives its one answer."""
        self.send(request)
        return self.receive(expected, max_body_bytes)

    def receive(self, expected: type[ReplyT], max_body_bytes: int) -> tuple[ReplyT, bytearray]:
        """The next frame, of the expected kind, its header valid and its body within `max_body_bytes`.

        Raises the SlideError that the child reports, or ReaderDied.
        """
        until = time.monotonic() + self._deadline_s
        try:
            header, body = read_frame(lambda size: self._read_exactly(size, until), max_body_bytes)
            reply = self._replies.validate_json(header)
        except (ValueError, ValidationError):
            raise self.reject_reply() from None
        if isinstance(reply, Failed):
            raise reply.error()
        if not isinstance(reply, expected):
            raise self.reject_reply()
        return reply, body

    def reject_reply(self) -> ReaderDied:
        """Ends the child because its answer cannot be true; gives the error to raise."""
        return self._dead("The process that reads the slide gave an impossible answer and was stopped; try again.")

    def kill(self) -> None:
        """Kills the child and leaves it to whoever talks to it, or closes, to reap it. From any thread."""
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        """Kills and reaps the child; may be called again."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        _open_pipe(child.stdin).close()
        _open_pipe(child.stdout).close()

    def _write(self, frame: bytes, until: float) -> None:
        descriptor = _open_pipe(self._require_child().stdin).fileno()
        while frame:
            if not _is_ready(descriptor, select.POLLOUT, until):
                raise self._dead(self._silent())
            with suppress(BlockingIOError):  # ready means room for a byte, not for the frame
                frame = frame[os.write(descriptor, frame) :]

    def _read_exactly(self, size: int, until: float) -> bytearray:
        descriptor = _open_pipe(self._require_child().stdout).fileno()
        buffer = bytearray(size)
        filled = 0
        while filled < size:
            if not _is_ready(descriptor, select.POLLIN, until):
                raise self._dead(self._silent())
            got = os.readv(descriptor, [memoryview(buffer)[filled:]])
            if not got:
                raise self._dead("The process that reads the slide ended unexpectedly; try again.")
            filled += got
        return buffer

    def _require_child(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            raise ReaderDied("The reader of this slide has ended; try again.")
        return self._child

    def _silent(self) -> str:
        return f"The slide's reader gave no answer within {self._deadline_s:g} s and was stopped."

    def _dead(self, detail: str) -> ReaderDied:
        self.close()
        return ReaderDied(detail)


def _start_child(command: Sequence[str], inherited: Sequence[int]) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # parsers print file names, which can be PHI
        bufsize=0,
        cwd="/",
        env=child_environment(),
        start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
        pass_fds=inherited,
    )
    os.set_blocking(_open_pipe(child.stdin).fileno(), False)
    _widen(_open_pipe(child.stdout))
    return child


def child_environment() -> dict[str, str]:
    """Nothing of ours, above all no secret; single-threaded numerics and two arenas keep the address space small.

    The child sees no GPU: a library in it that asked for one would take half a gigabyte of it, on whichever is first.
    """
    environment = {
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "",
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):  # how some installations find Python itself
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _open_pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the child is started with both pipes"
    return pipe


def _widen(pipe: IO[bytes]) -> None:
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _is_ready(descriptor: int, event: int, until: float) -> bool:
    poll = select.poll()  # select() fails beyond descriptor 1023
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))
