"""Messages of the child that parses a features file, in the frames of `encoders.tiling.isolation.reader_protocol`.

`Open` is answered by `FeaturesOpened`, `RowsRequest` by as many `RowsReply` as there are batches; `Failed` may stand
in place of either.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from encoders.errors import UnusableFeatures
from encoders.precomputed.given_features import LevelsShape, TileStatements
from encoders.tiling.isolation.reader_protocol import Failed, Message, Positive, Sentence

# Of the widest published encoder's features, several times over.
MAX_COLUMNS = 16_384
# About so much of the file is in the child's memory, and in the pipe, at once.
_BATCH_BYTES = 8 * 2**20


class FeaturesOpened(Message):
    """The array's shape and what the file says of its tiles.

    Body = int64 little-endian [rows, 2], level-0 (x, y), in the file's order; empty when the file has no coordinates.
    With `levels` a row is a region.
    """

    reply: Literal["features_opened"] = "features_opened"
    rows: Positive
    columns: Annotated[int, Field(gt=0, le=MAX_COLUMNS)]
    has_coords: bool
    levels: LevelsShape | None = None
    statements: TileStatements
    degraded: Annotated[list[Sentence], Field(max_length=16)]


class RowsRequest(Message):
    """Send all rows, in batches of `batch_rows`, the last one shorter."""

    ask: Literal["rows"] = "rows"
    batch_rows: Positive


class RowsReply(Message):
    """One batch; body = float32 little-endian [count, columns]."""

    reply: Literal["rows"] = "rows"
    first: Annotated[int, Field(ge=0, le=2**31)]
    count: Positive


AnyFeaturesReply = FeaturesOpened | RowsReply | Failed
FEATURES_REPLY: TypeAdapter[AnyFeaturesReply] = TypeAdapter(Annotated[AnyFeaturesReply, Field(discriminator="reply")])


def batch_rows_for(columns: int) -> int:
    """Rows of float32 that fit into one batch, at least one."""
    return max(1, _BATCH_BYTES // (4 * columns))


def require_shape(rows: int, columns: int, max_rows: int) -> None:
    """Raises UnusableFeatures for a declared shape that nobody should allocate."""
    if not 0 < rows <= max_rows:
        raise UnusableFeatures(
            f"The features have {rows} rows; 1 to {max_rows} tiles are accepted. Send fewer, or ask the operator to "
            "raise EYEPIECE_MAX_SLIDE_TILES."
        )
    if not 0 < columns <= MAX_COLUMNS:
        raise UnusableFeatures(
            f"The features are {columns} columns wide; 1 to {MAX_COLUMNS} are accepted. Send a row for each tile."
        )
