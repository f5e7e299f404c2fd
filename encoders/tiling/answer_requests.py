"""The child's work: one open slide, and an answer to each request. Runs under the limits of limit_process."""

import os
from collections.abc import Iterator
from functools import singledispatchmethod
from pathlib import Path

import cv2

from encoders.errors import SlideError, SlideTooLarge
from encoders.tiling.child_pipes import ChildPipes
from encoders.tiling.find_tissue import find_tissue
from encoders.tiling.open_slide import OpenSlideReader
from encoders.tiling.plan_tiles import TissueMask, choose_scale, plan_tiles
from encoders.tiling.read_overview import read_overview
from encoders.tiling.read_tiles import read_tiles
from encoders.tiling.reader_limits import ReaderLimits
from encoders.tiling.reader_protocol import (
    REQUEST,
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
)
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_reader import SlideReader
from encoders.tiling.thumbnail import thumbnail_png
from encoders.types import TilePlan
from model_store.manifest import TilingSpec

Answer = tuple[Message, memoryview]
_NO_BODY = memoryview(b"")
# Pixels of the overview along a tile's side: enough to see whether a tenth of it is tissue (8-16 µm/px).
_OVERVIEW_PX_PER_TILE = 16
# The cheapest level that still shows that: a level at downsample 64 costs a hundredth of one at 4.
_LEAST_PX_PER_TILE = 4


def serve(pipes: ChildPipes, request: Open, degraded: list[str]) -> None:
    """Opens the slide, then answers until the parent closes its end. A SlideError is an answer too."""
    cv2.setNumThreads(1)
    try:
        session = Session(OpenSlideReader(Path(os.fsdecode(request.path)), request.limits), request.limits)
    except (SlideError, MemoryError) as error:
        pipes.reply(_failed(error), _NO_BODY)
        return
    pipes.reply(session.opened(degraded), _NO_BODY)
    while True:
        try:
            for message, body in session.answer(REQUEST.validate_json(pipes.next_request())):
                pipes.reply(message, body)
        except (SlideError, MemoryError) as error:
            pipes.reply(_failed(error), _NO_BODY)


class Session:
    """An open slide and its last plan."""

    def __init__(self, reader: SlideReader, limits: ReaderLimits) -> None:
        self._reader = reader
        self._limits = limits
        self._plan: TilePlan | None = None

    def opened(self, degraded: list[str]) -> Opened:
        """The answer to `Open`."""
        facts = self._reader.facts
        return Opened(
            vendor=facts.vendor,
            width=facts.width,
            height=facts.height,
            mpp=facts.mpp,
            objective_power=facts.objective_power,
            degraded=degraded,
        )

    @singledispatchmethod
    def answer(self, request: Message) -> Iterator[Answer]:
        """One answer, or as many as there are batches; raises SlideError."""
        raise TypeError(f"no answer to {type(request).__name__}")

    @answer.register
    def _(self, request: PlanRequest) -> Iterator[Answer]:
        plan = self._plan = make_plan(self._reader, request.tiling, request.mpp_override, self._limits)
        message = Planned(
            level=plan.level, read_px=plan.read_px, tile_px_level0=plan.tile_px_level0, tile_count=len(plan.coords)
        )
        yield message, memoryview(plan.coords.astype("<i8").tobytes())

    @answer.register
    def _(self, request: TilesRequest) -> Iterator[Answer]:
        assert self._plan is not None, "the parent asks for tiles of a plan it has got"
        for batch in read_tiles(self._reader, self._plan, request.batch_tiles, self._limits.decode_threads):
            yield TilesReply(first=batch.first, count=len(batch.pixels)), batch.pixels.data

    @answer.register
    def _(self, request: ThumbnailRequest) -> Iterator[Answer]:
        yield ThumbnailReply(), memoryview(thumbnail_png(self._reader, request.max_px, self._limits))


def make_plan(reader: SlideReader, tiling: TilingSpec, mpp_override: float | None, limits: ReaderLimits) -> TilePlan:
    """Resolution, tissue, tiles: the three questions in the order of what they cost."""
    scale = choose_scale(reader.levels, effective_mpp(reader.facts, mpp_override), tiling)
    side = scale.tile_px_level0
    overview = read_overview(reader, side / _OVERVIEW_PX_PER_TILE, side / _LEAST_PX_PER_TILE, limits)
    mask = TissueMask(find_tissue(overview.pixels), overview.px_level0)
    return plan_tiles(reader.facts, scale, mask, tiling, mpp_override=mpp_override, max_tiles=limits.max_tiles)


def _failed(error: SlideError | MemoryError) -> Failed:
    if isinstance(error, MemoryError):
        error = SlideTooLarge("The slide needs more memory than its reader is allowed.")
    return Failed.model_validate({"code": error.code, "detail": error.detail})
