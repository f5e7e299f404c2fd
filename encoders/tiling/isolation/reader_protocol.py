"""The words between a process that wants a slide and the child that parses it. No pickle: its bytes are untrusted.

    frame = header bytes (u32) · body bytes (u32) · header (JSON) · body (raw)

One request is answered by one reply, `TilesRequest` by as many `TilesReply` as there are batches, whose pixels lie in
shared memory (tile_ring): batch i in slot i modulo `slots`. The child fills as many slots as there are, and each one
anew after a `Release`; a `Release` comes for exactly the batches whose slots are still needed. `Failed` may stand in
place of any reply. Every header is validated strictly on arrival: types, bounds, no unknown field, no NaN.
"""

import struct
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from encoders.errors import (
    MissingMpp,
    NoTissue,
    ResolutionTooLow,
    SlideError,
    SlideTooLarge,
    UnreadableSlide,
    UnsupportedFormat,
    UnusableFeatures,
)
from encoders.tile_budget import TileBudget
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.reader_kind import ReaderKind, ReaderReason
from encoders.types import SlideWarning, WarningCode
from model_store.contracts.region_grid import Cut

LENGTHS = struct.Struct(">II")
# The largest header is `Open` with two paths (4 KiB each on Linux, a third more as base64).
MAX_HEADER_BYTES = 16_384
MAX_THUMBNAIL_PX = 4_096
# The overlay's legend has words; narrower ones would be cut.
MIN_OVERLAY_PX = 640
MAX_BATCH_TILES = 1_024
MAX_WARNINGS = 16
Positive = Annotated[int, Field(gt=0, le=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e9)]
PictureForm = Literal["png", "jpeg"]
Share = Annotated[float, Field(ge=0, le=1)]
Sentence = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,300}$")]


class Message(BaseModel):
    """A frame's header."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        # A path need not be UTF-8.
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class Open(Message):
    """The first request; paths never travel as command-line arguments, which every user could list.

    `folder` holds the slide's files and no others; None for a slide of one file, whose neighbours are not its own.
    """

    ask: Literal["open"] = "open"
    path: bytes
    folder: bytes | None = None
    limits: ReaderLimits
    parent_pid: int


class PlanRequest(Message):
    """Find tissue and plan tiles or regions, within the slide's own budget; the child keeps the plan for
    `TilesRequest`."""

    ask: Literal["plan"] = "plan"
    cut: Cut
    mpp_override: float | None
    budget: TileBudget | None = None


class TilesRequest(Message):
    """Decode the planned tiles from `first_tile` on, in batches of `batch_tiles`, the last one shorter.

    `memory` is the descriptor, inherited by the child, of `slots` slots of `batch_tiles` tiles.
    """

    ask: Literal["tiles"] = "tiles"
    batch_tiles: Annotated[int, Field(ge=1, le=MAX_BATCH_TILES)]
    first_tile: Annotated[int, Field(ge=0, le=2**31)]
    slots: Annotated[int, Field(ge=1, le=64)]
    memory: Annotated[int, Field(ge=0, le=2**31)]


class Release(Message):
    """During a TilesRequest: the oldest slot that is still with the parent may be written anew."""

    ask: Literal["release"] = "release"


class ThumbnailRequest(Message):
    """Send a picture whose longer side is at most `max_px`."""

    ask: Literal["thumbnail"] = "thumbnail"
    max_px: Annotated[int, Field(ge=1, le=MAX_THUMBNAIL_PX)]
    form: PictureForm


class ViewTileRequest(Message):
    """Send a DeepZoom tile of the slide (`pictures.deep_zoom`)."""

    ask: Literal["view_tile"] = "view_tile"
    level: Annotated[int, Field(ge=0, le=32)]
    column: Annotated[int, Field(ge=0, le=2**31)]
    row: Annotated[int, Field(ge=0, le=2**31)]


class PartRequest(Message):
    """Send pixels of a part of the slide, in pixels of `scale` level-0 pixels a side (`deep_zoom.TilePlace`)."""

    ask: Literal["part"] = "part"
    scale: Annotated[int, Field(ge=1, le=2**20)]
    left: Annotated[int, Field(ge=0, le=2**31)]
    top: Annotated[int, Field(ge=0, le=2**31)]
    width: Annotated[int, Field(ge=1, le=MAX_THUMBNAIL_PX)]
    height: Annotated[int, Field(ge=1, le=MAX_THUMBNAIL_PX)]


class LevelsRequest(Message):
    """Describe the pyramid; no pixel is read for it."""

    ask: Literal["levels"] = "levels"


class InspectRequest(Message):
    """Look for tissue and pen as a plan would, and draw both and the plan, at most `overlay_px` a side, or not."""

    ask: Literal["inspect"] = "inspect"
    cut: Cut
    mpp_override: float | None
    overlay_px: Annotated[int, Field(ge=MIN_OVERLAY_PX, le=MAX_THUMBNAIL_PX)] | None


class Warned(Message):
    """A SlideWarning."""

    code: WarningCode
    detail: Sentence


Warnings = Annotated[list[Warned], Field(max_length=MAX_WARNINGS)]


class Opened(Message):
    """Answers `Open`: the slide's facts, who decodes it, a sentence for each limit that this platform did not grant."""

    reply: Literal["opened"] = "opened"
    vendor: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    width: Positive
    height: Positive
    mpp: Annotated[float, Field(ge=0.05, le=100)] | None
    objective_power: Annotated[float, Field(gt=0, le=400)] | None
    reader: ReaderKind
    reader_reason: ReaderReason
    degraded: Annotated[list[Sentence], Field(max_length=16)]
    warnings: Warnings


class Planned(Message):
    """Answers `PlanRequest`; body = int64 little-endian [tile_count, 2], level-0 (x, y), in the plan's order."""

    reply: Literal["planned"] = "planned"
    level: Annotated[int, Field(ge=0, lt=1_024)]
    read_px: Annotated[int, Field(gt=0, le=65_536)]
    tile_px_level0: PositiveFloat
    tile_count: Positive
    warnings: Warnings


class TilesReply(Message):
    """Tiles `first … first + count - 1` of the plan lie in `slot`: uint8 [count, tile_px, tile_px, 3], RGB. No body."""

    reply: Literal["tiles"] = "tiles"
    first: Annotated[int, Field(ge=0, le=2**31)]
    count: Positive
    slot: Annotated[int, Field(ge=0, lt=64)]


class ThumbnailReply(Message):
    """Answers `ThumbnailRequest`; body = PNG or JPEG, as asked for."""

    reply: Literal["thumbnail"] = "thumbnail"


class ViewTileReply(Message):
    """Answers `ViewTileRequest`; body = JPEG."""

    reply: Literal["view_tile"] = "view_tile"


class PartReply(Message):
    """Answers `PartRequest`; body = uint8 [height, width, 3], RGB."""

    reply: Literal["part"] = "part"


class LevelShape(Message):
    """One level: size in its own pixels, level-0 pixels per pixel, its tiles' size where that is known."""

    width: Positive
    height: Positive
    downsample: Annotated[float, Field(ge=1, le=1e6)]
    tile_width: Positive | None
    tile_height: Positive | None


class Levels(Message):
    """Answers `LevelsRequest`, finest level first."""

    reply: Literal["levels"] = "levels"
    levels: Annotated[list[LevelShape], Field(min_length=1, max_length=64)]


class Inspected(Message):
    """Answers `InspectRequest`; body = PNG, or nothing where none was asked for."""

    reply: Literal["inspected"] = "inspected"
    tissue_share: Share
    pen_share: Share


class Failed(Message):
    """What the slide is guilty of: the code of one of the SlideErrors and its sentence."""

    reply: Literal["failed"] = "failed"
    code: Literal[
        "unsupported_format",
        "unreadable_slide",
        "missing_mpp",
        "resolution_too_low",
        "no_tissue",
        "slide_too_large",
        "unusable_features",
    ]
    detail: Sentence

    def error(self) -> SlideError:
        """The exception that this failure stands for."""
        return _SLIDE_ERRORS[self.code](self.detail)


_SLIDE_ERRORS: dict[str, type[SlideError]] = {
    error.code: error
    for error in (
        UnsupportedFormat,
        UnreadableSlide,
        MissingMpp,
        ResolutionTooLow,
        NoTissue,
        SlideTooLarge,
        UnusableFeatures,
    )
}

AnyRequest = (
    PlanRequest | TilesRequest | ThumbnailRequest | ViewTileRequest | PartRequest | LevelsRequest | InspectRequest
)
AnyReply = Opened | Planned | TilesReply | ThumbnailReply | ViewTileReply | PartReply | Levels | Inspected | Failed
REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(Annotated[AnyRequest, Field(discriminator="ask")])
REPLY: TypeAdapter[AnyReply] = TypeAdapter(Annotated[AnyReply, Field(discriminator="reply")])


def warned(warnings: tuple[SlideWarning, ...]) -> list[Warned]:
    """The first of them, as they are sent."""
    return [Warned(code=it.code, detail=it.detail) for it in warnings[:MAX_WARNINGS]]


def warnings_from(sent: list[Warned]) -> tuple[SlideWarning, ...]:
    """As they were before they were sent."""
    return tuple(SlideWarning(it.code, it.detail) for it in sent)


def frame_head(message: Message, body_bytes: int = 0) -> bytes:
    """Everything of a frame but its body, which follows it as it is, uncopied."""
    header = message.model_dump_json().encode()
    return LENGTHS.pack(len(header), body_bytes) + header


def read_frame(read_exactly: Callable[[int], bytearray], max_body_bytes: int) -> tuple[bytearray, bytearray]:
    """The next frame's header and body; both lengths are checked before a byte of them is read or allocated.

    Raises ValueError when a length is beyond its limit, and whatever `read_exactly` raises.
    """
    header_bytes, body_bytes = LENGTHS.unpack(read_exactly(LENGTHS.size))
    if header_bytes > MAX_HEADER_BYTES or body_bytes > max_body_bytes:
        raise ValueError("a frame is longer than it may be")
    return read_exactly(header_bytes), read_exactly(body_bytes)
