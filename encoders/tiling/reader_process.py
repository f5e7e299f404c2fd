"""A slide seen through a child process that parses it: a corrupt slide can kill the child, never this process.

It knows neither OpenSlide nor torch. Nothing that comes back is believed before it is checked.
"""

import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from pydantic import ValidationError

from encoders.errors import ReaderDied
from encoders.tiling.check_plan import plan_from_reply
from encoders.tiling.reader_limits import ReaderLimits as ReaderLimits
from encoders.tiling.reader_protocol import (
    MAX_TILE_PX,
    REPLY,
    Failed,
    Message,
    Open,
    Opened,
    Planned,
    PlanRequest,
    ThumbnailReply,
    ThumbnailRequest,
    TilesReply,
    TilesRequest,
    frame_head,
    read_frame,
)
from encoders.types import SlideFacts, TileBatch, TilePlan
from model_store.manifest import TilingSpec

ReplyT = TypeVar("ReplyT", bound=Message)
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# A megabyte instead of 64 KiB: fewer wake-ups per batch. The kernel may grant less.
_PIPE_BYTES = 2**20


class ReaderProcess:
    """A context manager around one slide's child; used by one thread at a time.

    Entering starts the child, opens the slide and raises a SlideError when it is not one. Leaving kills and reaps.
    After a ReaderDied, or a `tiles()` that was not read to its end, the reader is spent: every call raises ReaderDied.
    The thread that enters must outlive the reader, because Linux ties the child's life to it.
    """

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        self._path = path.absolute()
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._opened: Opened | None = None
        self._plan: TilePlan | None = None

    def __enter__(self) -> Self:
        self._child = _start_child()
        try:
            request = Open(path=os.fspath(self._path), limits=self._limits, parent_pid=os.getpid())
            self._opened = self._ask(request, Opened)[0]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def degraded(self) -> tuple[str, ...]:
        """One sentence for each limit that this platform did not grant; for the log, once."""
        return tuple(self._require_opened().degraded)

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._child.pid if self._child else None

    def facts(self) -> SlideFacts:
        """What the slide says of itself; costs nothing, it was read on opening."""
        said = self._require_opened()
        self._check_dimensions(said)
        return SlideFacts(said.vendor, said.width, said.height, said.mpp, said.objective_power)

    def plan(self, tiling: TilingSpec, mpp_override: float | None) -> TilePlan:
        """Finds tissue and plans tiles; raises any SlideError but UnsupportedFormat."""
        facts = self.facts()
        request = PlanRequest(tiling=tiling, mpp_override=mpp_override)
        reply, body = self._ask(request, Planned, max_body_bytes=self._limits.max_tiles * 16)
        plan = plan_from_reply(reply, bytes(body), facts, tiling, mpp_override)
        if plan is None:
            raise self._disbelieve()
        self._plan = plan
        return plan

    def tiles(self, batch_tiles: int) -> Iterator[TileBatch]:
        """The tiles of the last plan, in its order and complete; raises UnreadableSlide at a damaged tile.

        The child reads a few batches ahead and waits when they are not taken.
        """
        plan = self._plan
        if plan is None or plan.tile_px > MAX_TILE_PX:
            raise ValueError("plan() must come first, with tiles of a believable size")
        total, done = len(plan.coords), 0
        self._send(TilesRequest(batch_tiles=batch_tiles))
        try:
            while done < total:
                count = min(batch_tiles, total - done)
                yield self._next_batch(plan, done, count)
                done += count
        finally:
            if done < total:  # what is still in the pipe would be taken for the next answer
                self.close()

    def thumbnail_png(self, max_px: int) -> bytes:
        """A PNG of the tissue picture (never label or macro), its longer side at most `max_px`, on white."""
        request = ThumbnailRequest(max_px=max_px)
        _, body = self._ask(request, ThumbnailReply, max_body_bytes=max_px * max_px * 4 + 65_536)
        if not _is_png_within(body, max_px):
            raise self._disbelieve()
        return bytes(body)

    def close(self) -> None:
        """Kills and reaps the child; safe to call again and from another thread."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _next_batch(self, plan: TilePlan, first: int, count: int) -> TileBatch:
        shape = (count, plan.tile_px, plan.tile_px, 3)
        expected_bytes = int(np.prod(shape))
        reply, body = self._receive(TilesReply, expected_bytes)
        if (reply.first, reply.count, len(body)) != (first, count, expected_bytes):
            raise self._disbelieve()
        return TileBatch(first, np.frombuffer(body, dtype=np.uint8).reshape(shape))

    def _ask(self, request: Message, expected: type[ReplyT], *, max_body_bytes: int = 0) -> tuple[ReplyT, bytearray]:
        self._send(request)
        return self._receive(expected, max_body_bytes)

    def _send(self, request: Message) -> None:
        pipe = self._require_child().stdin
        assert pipe is not None
        try:
            pipe.write(frame_head(request))
        except (BrokenPipeError, ValueError):
            raise self._died() from None

    def _receive(self, expected: type[ReplyT], max_body_bytes: int) -> tuple[ReplyT, bytearray]:
        until = time.monotonic() + self._limits.deadline_s
        try:
            header, body = read_frame(lambda size: self._read_exactly(size, until), max_body_bytes)
            reply = REPLY.validate_json(header)
        except (ValueError, ValidationError):
            raise self._disbelieve() from None
        if isinstance(reply, Failed):
            raise reply.error()
        if not isinstance(reply, expected):
            raise self._disbelieve()
        return reply, body

    def _read_exactly(self, size: int, until: float) -> bytearray:
        pipe = self._require_child().stdout
        assert pipe is not None
        buffer = bytearray(size)
        filled = 0
        while filled < size:
            if not _readable(pipe.fileno(), until):
                raise self._too_slow()
            got = pipe.readinto(memoryview(buffer)[filled:])  # type: ignore[attr-defined]
            if not got:
                raise self._died()
            filled += got
        return buffer

    def _check_dimensions(self, said: Opened) -> None:
        if max(said.width, said.height) > self._limits.max_dimension_px:
            raise self._disbelieve()

    def _require_opened(self) -> Opened:
        if self._opened is None:
            raise ValueError("a ReaderProcess is entered before it is asked")
        return self._opened

    def _require_child(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise ReaderDied("The reader of this slide has ended; try again.")
        return self._child

    def _died(self) -> ReaderDied:
        self.close()
        return ReaderDied("The process that reads the slide ended unexpectedly; try again.")

    def _too_slow(self) -> ReaderDied:
        self.close()
        return ReaderDied(f"The slide's reader did not answer within {self._limits.deadline_s:g} s and was stopped.")

    def _disbelieve(self) -> ReaderDied:
        self.close()
        return ReaderDied("The process that reads the slide gave an impossible answer and was stopped; try again.")


def _start_child() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        # -P: never import from the working directory.
        [sys.executable, "-P", "-m", "encoders.tiling.reader_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # parsers print file names, which can be PHI
        bufsize=0,
        cwd="/",
        env=_child_environment(),
        start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
    )
    _widen(child)
    return child


def _child_environment() -> dict[str, str]:
    """Nothing of ours, above all no secret; single-threaded numerics and two arenas keep the address space small."""
    environment = {
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):  # how some installations find Python itself
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _widen(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _readable(descriptor: int, until: float) -> bool:
    poll = select.poll()  # select() fails beyond descriptor 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def _is_png_within(body: bytearray, max_px: int) -> bool:
    if len(body) < 33 or body[:8] != _PNG_MAGIC or body[12:16] != b"IHDR":
        return False
    width, height = int.from_bytes(body[16:20]), int.from_bytes(body[20:24])
    return 0 < width <= max_px and 0 < height <= max_px
