"""The child's work: one open features file, its shape, then its rows. Runs under the limits of limit_process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from encoders.errors import SlideError, UnsupportedFormat, UnusableFeatures
from encoders.precomputed.features_kind import FeaturesKind
from encoders.precomputed.features_protocol import FeaturesOpened, RowsReply, RowsRequest, require_shape
from encoders.precomputed.given_features import TEXT_STATEMENTS, LevelsShape, TileStatements
from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_protocol import Failed

_NO_BODY = memoryview(b"")
# The largest float that still has all whole numbers below it, and far beyond any slide.
_MAX_COORDINATE = 2**53


class FeaturesFile(Protocol):
    """An open file; raises UnusableFeatures or UnsupportedFormat."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as the file declares them."""

    @property
    def levels(self) -> LevelsShape | None:
        """What a row is made of, where it is a region."""

    def coords(self) -> NDArray[np.generic] | None:
        """Numbers [N, 2] in the file's own type, or None."""

    def statements(self) -> dict[str, object]:
        """Attributes by the names of TileStatements."""

    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        """Some rows."""


def serve(pipes: ChildPipes, path: Path, kind: FeaturesKind | None, limits: ReaderLimits, degraded: list[str]) -> None:
    """Opens the file and answers until the parent closes its end. A SlideError is an answer too."""
    try:
        file = _open(path, kind)
        rows, columns = file.shape
        require_shape(rows, columns, limits.max_tiles)
        opened, body = _opened(file, degraded)
        pipes.reply(opened, body)
        request = RowsRequest.model_validate_json(pipes.next_request())
        for reply, batch in _batches(file, request.batch_rows):
            pipes.reply(reply, batch)
    except (SlideError, MemoryError) as error:
        pipes.reply(_failed(error), _NO_BODY)
    pipes.next_request()  # ends this process when the parent has had enough


def _open(path: Path, kind: FeaturesKind | None) -> FeaturesFile:
    if kind == "hdf5":
        from encoders.precomputed.read_given_levels import open_levels
        from encoders.precomputed.read_hdf5 import Hdf5Features

        return open_levels(path) or Hdf5Features(path)
    if kind == "torch":
        from encoders.precomputed.read_torch import TorchFeatures

        return TorchFeatures(path)
    raise UnsupportedFormat("The file is neither HDF5 nor what torch.save writes; send one of these.")


def _opened(file: FeaturesFile, degraded: list[str]) -> tuple[FeaturesOpened, memoryview]:
    rows, columns = file.shape
    coords = file.coords()
    body = _NO_BODY if coords is None else memoryview(_whole(coords, rows).tobytes())
    opened = FeaturesOpened(
        rows=rows,
        columns=columns,
        has_coords=coords is not None,
        levels=file.levels,
        statements=_statements(file.statements()),
        degraded=degraded,
    )
    return opened, body


def _batches(file: FeaturesFile, batch_rows: int) -> Iterator[tuple[RowsReply, memoryview]]:
    rows, _ = file.shape
    for first in range(0, rows, batch_rows):
        batch = np.ascontiguousarray(file.rows(first, min(batch_rows, rows - first)), dtype="<f4")
        yield RowsReply(first=first, count=len(batch)), memoryview(batch.tobytes())


def _whole(coords: NDArray[np.generic], rows: int) -> NDArray[np.int64]:
    """GigaPath keeps whole coordinates as floats; anything in between is none."""
    if coords.shape != (rows, 2) or coords.dtype.kind not in "iuf":
        raise UnusableFeatures(
            f"`coords` must be {rows} rows of level-0 (x, y), one for each row of features; send them so."
        )
    if coords.dtype.kind == "f":
        whole = np.isfinite(coords) & (coords == np.floor(coords)) & (np.abs(coords) <= _MAX_COORDINATE)
        if not whole.all():
            if np.isfinite(coords).all() and coords.min() >= 0 and coords.max() <= 1:
                raise UnusableFeatures(
                    "`coords` lie between 0 and 1: they are shares of the slide's sides. Send whole level-0 pixels."
                )
            raise UnusableFeatures("`coords` must be whole level-0 pixels; round them and send the file again.")
    return coords.astype("<i8")


def _statements(attributes: dict[str, object]) -> TileStatements:
    try:
        return TileStatements.model_validate(attributes)
    except ValidationError as error:
        field = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        if field not in TEXT_STATEMENTS and isinstance(attributes.get(field), str | bytes):
            raise UnusableFeatures(
                f"The file's attribute `{field}` is text and must be a number; write it as one, or remove it."
            ) from None
        raise UnusableFeatures(
            f"The file's attribute `{field}` is not what it should be; correct or remove it."
        ) from None


def _failed(error: SlideError | MemoryError) -> Failed:
    if isinstance(error, MemoryError):
        error = UnusableFeatures(
            "The features file needs more memory than its reader is allowed. Send float32 or float16, or ask the "
            "operator to raise EYEPIECE_READER_MEMORY_BYTES."
        )
    return Failed.model_validate({"code": error.code, "detail": error.detail})
