"""A slide seen through a child process that parses it: a corrupt slide can kill the child, never this process.

It knows neither OpenSlide nor torch. Nothing that comes back is believed before it is checked.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.tile_budget import TileBudget
from encoders.tiling.isolation.check_plan import plan_from_reply
from encoders.tiling.isolation.file_process import FileProcess
from encoders.tiling.isolation.reader_channel import warn_of_refused_limits
from encoders.tiling.isolation.reader_limits import ReaderLimits as ReaderLimits
from encoders.tiling.isolation.reader_protocol import (
    REPLY,
    Inspected,
    InspectRequest,
    Levels,
    LevelsRequest,
    Opened,
    PartReply,
    PartRequest,
    PictureForm,
    Planned,
    PlanRequest,
    Release,
    ThumbnailReply,
    ThumbnailRequest,
    TilesReply,
    TilesRequest,
    ViewTileReply,
    ViewTileRequest,
    warnings_from,
)
from encoders.tiling.isolation.tile_ring import RingShape, TileRing, make_memory, ring_shape
from encoders.tiling.pictures.check_picture import jpeg_size, png_size
from encoders.tiling.pictures.deep_zoom import TILE_PX, DeepZoom, TilePlace
from encoders.tiling.pictures.inspection import Inspection, SlideLevel, levels_from_reply
from encoders.tiling.slide_readers.reader_kind import ReaderKind, ReaderReason
from encoders.types import SlideFacts, TileBatch, TilePlan
from model_store.contracts.region_grid import Cut

# -P: never import from the working directory.
READER_COMMAND = (sys.executable, "-P", "-m", "encoders.tiling.isolation.reader_child")


class ReaderProcess(FileProcess):
    """A context manager around one slide's child; used by one thread at a time.

    Entering starts the child, opens the slide and raises a SlideError when it is not one. Leaving kills and reaps.
    After a ReaderDied, or a `tiles()` that was not read to its end, the reader is spent: every call raises ReaderDied.
    The thread that enters must outlive the reader, because Linux ties the child's life to it.
    """

    def __init__(
        self,
        path: Path,
        limits: ReaderLimits,
        *,
        folder: Path | None = None,
        command: Sequence[str] = READER_COMMAND,
    ) -> None:
        """Without `folder` the slide is the one file; with it, all that is in that folder (see FileProcess)."""
        super().__init__(path, limits, command, REPLY, folder)
        self._plan: TilePlan | None = None

    @property
    def kind(self) -> ReaderKind:
        """Who decodes this slide in the child."""
        return self._opened.reader

    @property
    def reason(self) -> ReaderReason:
        """Why it is that one."""
        return self._opened.reader_reason

    def facts(self) -> SlideFacts:
        """What the slide says of itself; costs nothing, it was read on opening."""
        said = self._opened
        warnings = warnings_from(said.warnings)
        return SlideFacts(said.vendor, said.width, said.height, said.mpp, said.objective_power, warnings)

    def plan(self, cut: Cut, mpp_override: float | None, budget: TileBudget | None = None) -> TilePlan:
        """Finds tissue and plans tiles, or regions as tiles, within the slide's own budget; raises any SlideError but
        UnsupportedFormat."""
        request = PlanRequest(cut=cut, mpp_override=mpp_override, budget=budget)
        reply, body = self._channel.ask(request, Planned, max_body_bytes=self._limits.max_tiles * 16)
        plan = plan_from_reply(reply, bytes(body), self.facts(), cut, mpp_override)
        if plan is None or (budget is not None and len(plan.coords) > budget.tiles):
            raise self._channel.reject_reply()
        self._plan = plan
        return plan

    def tiles(self, batch_tiles: int, first_tile: int = 0) -> Iterator[TileBatch]:
        """The last plan's tiles from `first_tile` on, in its order and complete; UnreadableSlide at a damaged tile.

        A batch's pixels are a read-only view of shared memory, valid only until the next batch is asked for. The child
        decodes a few batches ahead and waits, however long, when they are not taken.
        """
        if self._plan is None:
            raise ValueError("plan() comes before tiles()")
        shape = ring_shape(batch_tiles, self._plan.tile_px, self._limits)
        request = TilesRequest(batch_tiles=batch_tiles, first_tile=first_tile, slots=shape.slots, memory=self._memory)
        firsts = range(first_tile, len(self._plan.coords), batch_tiles)
        received = 0
        try:
            for batch in self._batches(request, shape, firsts):
                received += 1
                yield batch
        finally:
            if received < len(firsts):  # what is still in the pipe would be taken for the next answer
                self._channel.close()

    def thumbnail(self, max_px: int, form: PictureForm) -> bytes:
        """The tissue picture (never label or macro), its longer side at most `max_px`, hatched where nothing was
        scanned. Up to 2,048 px a small picture is read once, which also serves `view_tile`."""
        request = ThumbnailRequest(max_px=max_px, form=form)
        _, body = self._channel.ask(request, ThumbnailReply, max_body_bytes=_most_picture_bytes(max_px))
        picture = bytes(body)
        if not _is_within(png_size(picture) if form == "png" else jpeg_size(picture), max_px):
            raise self._channel.reject_reply()
        return picture

    def view_tile(self, level: int, column: int, row: int) -> bytes:
        """A DeepZoom tile as JPEG, white where nothing was scanned; ValueError when the slide has no such tile.

        Raises UnreadableSlide naming the damaged level-0 rectangle, or SlideTooLarge.
        """
        place = DeepZoom(self._opened.width, self._opened.height).place(level, column, row)
        if place is None:
            raise ValueError("the level has no such tile")
        request = ViewTileRequest(level=level, column=column, row=row)
        _, body = self._channel.ask(request, ViewTileReply, max_body_bytes=_most_picture_bytes(TILE_PX))
        tile = bytes(body)
        if jpeg_size(tile) != (place.width, place.height):
            raise self._channel.reject_reply()
        return tile

    def part(self, place: TilePlace) -> NDArray[np.uint8]:
        """RGB uint8 [height, width, 3] of a part of the slide that lies in it, white where nothing was scanned.

        Raises UnreadableSlide naming the damaged level-0 rectangle, or SlideTooLarge; ValueError outside the slide.
        """
        within = (place.left + place.width - 1) * place.scale < self._opened.width
        if not (within and (place.top + place.height - 1) * place.scale < self._opened.height):
            raise ValueError("the part does not lie in the slide")
        size_bytes = place.height * place.width * 3
        _, body = self._channel.ask(PartRequest(**asdict(place)), PartReply, max_body_bytes=size_bytes)
        if len(body) != size_bytes:
            raise self._channel.reject_reply()
        return np.frombuffer(body, np.uint8).reshape(place.height, place.width, 3)

    def levels(self) -> tuple[SlideLevel, ...]:
        """The pyramid, finest level first; costs nothing."""
        reply, _ = self._channel.ask(LevelsRequest(), Levels)
        levels = levels_from_reply(reply.levels, self.facts())
        if levels is None:
            raise self._channel.reject_reply()
        return levels

    def inspect(self, cut: Cut, mpp_override: float | None, overlay_px: int | None = None) -> Inspection:
        """Tissue and pen, also where the slide cannot be planned; with `overlay_px` drawn, at most that large a side.

        Raises UnreadableSlide or SlideTooLarge.
        """
        request = InspectRequest(cut=cut, mpp_override=mpp_override, overlay_px=overlay_px)
        most_bytes = 0 if overlay_px is None else _most_picture_bytes(overlay_px)
        reply, body = self._channel.ask(request, Inspected, max_body_bytes=most_bytes)
        if overlay_px is not None and not _is_within(png_size(bytes(body)), overlay_px):
            raise self._channel.reject_reply()
        return Inspection(reply.tissue_share, reply.pen_share, None if overlay_px is None else bytes(body))

    def _make_inherited(self, owned: ExitStack) -> tuple[int, ...]:
        self._memory = make_memory(self._limits.ring_bytes)
        owned.callback(os.close, self._memory)
        return (self._memory,)

    def _open(self) -> None:
        self._opened, _ = self._ask_to_open(Opened)
        if max(self._opened.width, self._opened.height) > self._limits.max_dimension_px:
            raise self._channel.reject_reply()
        warn_of_refused_limits(self._opened.degraded)

    def _batches(self, request: TilesRequest, shape: RingShape, firsts: range) -> Iterator[TileBatch]:
        if not firsts:
            return
        self._channel.send(request)
        ring = TileRing(self._memory, shape, writable=False)
        for index, first in enumerate(firsts):
            if 0 < index <= len(firsts) - shape.slots:  # the caller is done with the batch before
                self._channel.send(Release())
            count = min(firsts.step, firsts.stop - first)
            yield TileBatch(first, self._next_batch(ring, first, count, index % shape.slots))

    def _next_batch(self, ring: TileRing, first: int, count: int, slot: int) -> NDArray[np.uint8]:
        reply, _ = self._channel.receive(TilesReply, max_body_bytes=0)
        if (reply.first, reply.count, reply.slot) != (first, count, slot):
            raise self._channel.reject_reply()
        return ring.slot(slot, count)


def _most_picture_bytes(max_px: int) -> int:
    """A picture of noise is a little larger than its pixels."""
    return max_px * max_px * 4 + 65_536


def _is_within(size: tuple[int, int] | None, max_px: int) -> bool:
    return size is not None and 0 < size[0] <= max_px and 0 < size[1] <= max_px
