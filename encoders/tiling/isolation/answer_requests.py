"""The child's work: one open slide, and an answer to each request. Runs under the limits of limit_process."""

from collections.abc import Iterator
from functools import singledispatchmethod

import cv2

from encoders.errors import SlideError, SlideTooLarge
from encoders.sandbox.confine import Confined
from encoders.sandbox.index_names import require_names_inside
from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.child_slots import ChildSlots
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_protocol import (
    REQUEST,
    Failed,
    Inspected,
    InspectRequest,
    Levels,
    LevelShape,
    LevelsRequest,
    Message,
    Opened,
    PartReply,
    PartRequest,
    Planned,
    PlanRequest,
    ThumbnailReply,
    ThumbnailRequest,
    TilesReply,
    TilesRequest,
    ViewTileReply,
    ViewTileRequest,
    warned,
)
from encoders.tiling.pictures.deep_zoom import TilePlace
from encoders.tiling.pictures.inspect_slide import InspectOptions, inspect_slide
from encoders.tiling.pictures.view_pictures import ViewPictures, as_picture
from encoders.tiling.plan_cut import plan_cut
from encoders.tiling.read_tiles import read_tiles
from encoders.tiling.slide_readers.choose_reader import ChosenReader, open_reader
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.spend_budget import within_budget
from encoders.types import TilePlan

Answer = tuple[Message, memoryview]
_NO_BODY = memoryview(b"")


def serve(pipes: ChildPipes, confined: Confined, limits: ReaderLimits) -> None:
    """Opens the slide, then answers until the parent closes its end. A SlideError is an answer too."""
    cv2.setNumThreads(1)
    try:
        if not confined.sees_only_its_files:
            require_names_inside(confined.files, is_confined=confined.opens_only_its_files)
        chosen = open_reader(confined.files.entry, limits)
    except (SlideError, MemoryError) as error:
        pipes.reply(_failed(error), _NO_BODY)
        return
    pipes.reply(opened(chosen, confined.degraded), _NO_BODY)
    session = Session(chosen.reader, limits, pipes)
    while True:
        try:
            for message, body in session.answer(REQUEST.validate_json(pipes.next_request())):
                pipes.reply(message, body)
        except (SlideError, MemoryError) as error:
            pipes.reply(_failed(error), _NO_BODY)


class Session:
    """An open slide, its last plan, and its small picture."""

    def __init__(self, reader: SlideReader, limits: ReaderLimits, pipes: ChildPipes) -> None:
        """`pipes` for what the parent says during an answer."""
        self._reader = reader
        self._limits = limits
        self._pipes = pipes
        self._plan: TilePlan | None = None
        self._pictures = ViewPictures(reader, limits)

    @singledispatchmethod
    def answer(self, request: Message) -> Iterator[Answer]:
        """One answer, or as many as there are batches; raises SlideError."""
        raise TypeError(f"no answer to {type(request).__name__}")

    @answer.register
    def _(self, request: PlanRequest) -> Iterator[Answer]:
        planned = plan_cut(self._reader, request.cut, request.mpp_override, self._limits)
        plan = self._plan = within_budget(planned, request.budget)
        message = Planned(
            level=plan.level,
            read_px=plan.read_px,
            tile_px_level0=plan.tile_px_level0,
            tile_count=len(plan.coords),
            warnings=warned(plan.warnings),
        )
        yield message, memoryview(plan.coords.astype("<i8").tobytes())

    @answer.register
    def _(self, request: TilesRequest) -> Iterator[Answer]:
        plan, threads = self._plan, self._limits.decode_threads
        assert plan is not None, "the parent asks for tiles of a plan it has got"
        slots = ChildSlots(request, plan.tile_px, self._pipes)
        for filled in read_tiles(self._reader, plan, slots, request.batch_tiles, threads, request.first_tile):
            yield TilesReply(first=filled.first, count=filled.count, slot=filled.slot), _NO_BODY

    @answer.register
    def _(self, request: ThumbnailRequest) -> Iterator[Answer]:
        yield ThumbnailReply(), memoryview(as_picture(self._pictures.thumbnail(request.max_px), request.form))

    @answer.register
    def _(self, request: ViewTileRequest) -> Iterator[Answer]:
        yield ViewTileReply(), memoryview(self._pictures.tile_jpeg(request.level, request.column, request.row))

    @answer.register
    def _(self, request: PartRequest) -> Iterator[Answer]:
        place = TilePlace(request.scale, request.left, request.top, request.width, request.height)
        yield PartReply(), memoryview(self._pictures.part(place).tobytes())

    @answer.register
    def _(self, request: LevelsRequest) -> Iterator[Answer]:
        yield _levels(self._reader), _NO_BODY

    @answer.register
    def _(self, request: InspectRequest) -> Iterator[Answer]:
        options = InspectOptions(request.cut, request.mpp_override, request.overlay_px)
        look = inspect_slide(self._reader, options, self._limits)
        yield Inspected(tissue_share=look.tissue_share, pen_share=look.pen_share), memoryview(look.overlay)


def opened(chosen: ChosenReader, degraded: list[str]) -> Opened:
    """The answer to `Open`."""
    facts = chosen.reader.facts
    return Opened(
        vendor=facts.vendor,
        width=facts.width,
        height=facts.height,
        mpp=facts.mpp,
        objective_power=facts.objective_power,
        reader=chosen.kind,
        reader_reason=chosen.reason,
        degraded=degraded,
        warnings=warned(facts.warnings),
    )


def _levels(reader: SlideReader) -> Levels:
    shapes = []
    for level, tile_size in zip(reader.levels, reader.tile_sizes, strict=True):
        tile_width, tile_height = tile_size or (None, None)
        shapes.append(
            LevelShape(
                width=level.width,
                height=level.height,
                downsample=level.downsample,
                tile_width=tile_width,
                tile_height=tile_height,
            )
        )
    return Levels(levels=shapes)


def _failed(error: SlideError | MemoryError) -> Failed:
    if isinstance(error, MemoryError):
        error = SlideTooLarge(
            "The slide needs more memory than its reader is allowed. Export it again in smaller tiles, or ask the "
            "operator to raise EYEPIECE_READER_MEMORY_BYTES."
        )
    return Failed.model_validate({"code": error.code, "detail": error.detail})
