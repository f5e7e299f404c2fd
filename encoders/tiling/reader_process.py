"""A slide seen through a child process that parses it: a corrupt slide can kill the child, never this process.

It knows neither OpenSlide nor torch. Nothing that comes back is believed before it is checked.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from encoders.tiling.check_plan import plan_from_reply
from encoders.tiling.reader_channel import ReaderChannel, warn_of_refused_limits
from encoders.tiling.reader_limits import ReaderLimits as ReaderLimits
from encoders.tiling.reader_protocol import (
    REPLY,
    Open,
    Opened,
    Planned,
    PlanRequest,
    ThumbnailReply,
    ThumbnailRequest,
    TilesReply,
    TilesRequest,
)
from encoders.types import SlideFacts, TileBatch, TilePlan
from model_store.manifest import TilingSpec

# -P: never import from the working directory.
READER_COMMAND = (sys.executable, "-P", "-m", "encoders.tiling.reader_child")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class ReaderProcess:
    """A context manager around one slide's child; used by one thread at a time.

    Entering starts the child, opens the slide and raises a SlideError when it is not one. Leaving kills and reaps.
    After a ReaderDied, or a `tiles()` that was not read to its end, the reader is spent: every call raises ReaderDied.
    The thread that enters must outlive the reader, because Linux ties the child's life to it.
    """

    def __init__(self, path: Path, limits: ReaderLimits, *, command: Sequence[str] = READER_COMMAND) -> None:
        self._path = path.absolute()
        self._limits = limits
        self._command = command
        self._plan: TilePlan | None = None

    def __enter__(self) -> Self:
        self._channel = ReaderChannel(self._command, self._limits.deadline_s, REPLY)
        try:
            self._opened = self._open()
        except BaseException:
            self._channel.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, None once it is reaped."""
        return self._channel.pid

    def facts(self) -> SlideFacts:
        """What the slide says of itself; costs nothing, it was read on opening."""
        said = self._opened
        return SlideFacts(said.vendor, said.width, said.height, said.mpp, said.objective_power)

    def plan(self, tiling: TilingSpec, mpp_override: float | None) -> TilePlan:
        """Finds tissue and plans tiles; raises any SlideError but UnsupportedFormat."""
        request = PlanRequest(tiling=tiling, mpp_override=mpp_override)
        reply, body = self._channel.ask(request, Planned, max_body_bytes=self._limits.max_tiles * 16)
        plan = plan_from_reply(reply, bytes(body), self.facts(), tiling, mpp_override)
        if plan is None:
            raise self._channel.disbelieve()
        self._plan = plan
        return plan

    def tiles(self, batch_tiles: int) -> Iterator[TileBatch]:
        """The tiles of the last plan, in its order and complete; raises UnreadableSlide at a damaged tile.

        The child reads a few batches ahead and waits when they are not taken.
        """
        if self._plan is None:
            raise ValueError("plan() comes before tiles()")
        total, done = len(self._plan.coords), 0
        self._channel.send(TilesRequest(batch_tiles=batch_tiles))
        try:
            while done < total:
                count = min(batch_tiles, total - done)
                yield self._next_batch(done, count, self._plan.tile_px)
                done += count
        finally:
            if done < total:  # what is still in the pipe would be taken for the next answer
                self._channel.close()

    def thumbnail_png(self, max_px: int) -> bytes:
        """A PNG of the tissue picture (never label or macro), its longer side at most `max_px`, on white."""
        request = ThumbnailRequest(max_px=max_px)
        # A PNG of noise is a little larger than its pixels.
        _, body = self._channel.ask(request, ThumbnailReply, max_body_bytes=max_px * max_px * 4 + 65_536)
        if not _is_png_within(body, max_px):
            raise self._channel.disbelieve()
        return bytes(body)

    def _open(self) -> Opened:
        request = Open(path=os.fsencode(self._path), limits=self._limits, parent_pid=os.getpid())
        opened, _ = self._channel.ask(request, Opened)
        if max(opened.width, opened.height) > self._limits.max_dimension_px:
            raise self._channel.disbelieve()
        warn_of_refused_limits(opened.degraded)
        return opened

    def _next_batch(self, first: int, count: int, tile_px: int) -> TileBatch:
        shape = (count, tile_px, tile_px, 3)
        reply, body = self._channel.receive(TilesReply, int(np.prod(shape)))
        if (reply.first, reply.count, len(body)) != (first, count, int(np.prod(shape))):
            raise self._channel.disbelieve()
        return TileBatch(first, np.frombuffer(body, dtype=np.uint8).reshape(shape))


def _is_png_within(body: bytearray, max_px: int) -> bool:
    if len(body) < 33 or body[:8] != _PNG_MAGIC or body[12:16] != b"IHDR":
        return False
    width, height = int.from_bytes(body[16:20]), int.from_bytes(body[20:24])
    return 0 < width <= max_px and 0 < height <= max_px
