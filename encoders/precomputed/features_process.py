"""A features file seen through a child process that parses it: a hostile file can kill the child, never this process.

It knows neither h5py nor torch. Nothing that comes back is believed before it is checked.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.errors import ReaderDied, SlideError, UnusableFeatures
from encoders.precomputed.check_features import (
    check_filled,
    check_levels,
    check_range,
    check_shape,
    check_tiles,
    check_written,
    raster_order,
    slide_tokens,
)
from encoders.precomputed.check_geometry import check_against_slide, tile_side_px_level0
from encoders.precomputed.check_place import check_place, not_compared
from encoders.precomputed.features_protocol import (
    FEATURES_REPLY,
    FeaturesOpened,
    RowsReply,
    RowsRequest,
    batch_rows_for,
)
from encoders.precomputed.given_features import (
    GivenFeatures,
    GivenLevels,
    GivenSlideTokens,
    GivenTiles,
    LevelsShape,
)
from encoders.tiling.isolation.file_process import FileProcess
from encoders.tiling.isolation.reader_channel import warn_of_refused_limits
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import SlideFacts, SlideWarning, TilePlan
from model_store.manifest import Manifest

# From µm/px to the plan of a slide's own pixels.
PlanSlide = Callable[[float], TilePlan]
# -P: never import from the working directory.
FEATURES_COMMAND = (sys.executable, "-P", "-m", "encoders.precomputed.features_child")


def _go_on() -> None:
    """For a caller that never stops."""


def read_given_features(
    path: Path,
    manifest: Manifest,
    limits: ReaderLimits,
    *,
    ask: Callable[[], None] = _go_on,
    command: Sequence[str] = FEATURES_COMMAND,
) -> GivenFeatures:
    """The features in a file, checked against the served model: tiles in raster order, or slide tokens.

    `ask` is called before every batch of rows, and stops the reading by raising.

    Raises UnusableFeatures, UnreadableSlide or UnsupportedFormat for the file's faults, ReaderDied for the child's.
    """
    with FeaturesProcess(path, limits, command=command) as process:
        coords, levels = process.coords(), process.opened.levels
        if levels is not None:
            return _given_levels(process, levels, coords, manifest, ask)
        check_shape(process.opened.rows, process.opened.columns, manifest, has_coords=coords is not None)
        if coords is None:
            return GivenSlideTokens(slide_tokens(process.rows(ask), manifest))
        check_tiles(coords, process.opened.statements, manifest)
        order, features = raster_order(coords), process.rows(ask)
        check_range(features)
        check_filled(features)
        return GivenTiles(features[order], coords[order], process.opened.statements)


def check_features_of_slide(
    path: Path, manifest: Manifest, limits: ReaderLimits, slide: SlideFacts | None, plan_slide: PlanSlide
) -> tuple[SlideWarning, ...]:
    """What is doubtful about features for a slide of which `slide` is known. Raises as `read_given_features` when their
    shape, coordinates or statements cannot be used, or cannot be this slide's.

    The rows are not read: that is for whoever encodes them. `plan_slide` gets the µm/px that follow from the features,
    for a slide that states none; it raises SlideError or ReaderDied where there is no plan to compare with.
    """
    with FeaturesProcess(path, limits) as process:
        coords, said, levels = process.coords(), process.opened.statements, process.opened.levels
        if levels is not None:
            return _doubts_about_levels(levels, coords, manifest, slide)
        check_shape(process.opened.rows, process.opened.columns, manifest, has_coords=coords is not None)
    if coords is None:
        return ()
    check_tiles(coords, said, manifest)
    if slide is None:
        return ()
    tiling = manifest.first_input.tiling
    check_against_slide(coords, said, slide, tiling)
    side = tile_side_px_level0(coords, said, slide, tiling)
    if side is None:
        return (not_compared("nothing says how large a tile is."),)
    try:
        plan = plan_slide(tiling.tile_px * tiling.target_mpp / side)
    except (SlideError, ReaderDied) as error:
        return (not_compared(error.detail),)
    return check_place(coords, side, plan)


def _given_levels(
    process: "FeaturesProcess",
    levels: LevelsShape,
    coords: NDArray[np.int64] | None,
    manifest: Manifest,
    ask: Callable[[], None],
) -> GivenLevels:
    assert coords is not None, "a file of levels has corners"
    check_levels(levels, coords, manifest)
    rows = process.rows(ask)
    check_range(rows)
    given = GivenLevels.of_rows(levels, coords, rows)
    index, places = np.sort(given.patch_index, axis=1), (levels.region_px // levels.patch_px) ** 2
    if (index[:, 1:] == index[:, :-1]).any() or index.max() >= places:
        raise process.reject()
    for features in (given.region, given.patch.reshape(-1, levels.patch_dim)):  # of cells there may be none
        check_written(features)
    return given


def _doubts_about_levels(
    levels: LevelsShape,
    coords: NDArray[np.int64] | None,
    manifest: Manifest,
    slide: SlideFacts | None,
) -> tuple[SlideWarning, ...]:
    """Whether they can be this slide's is a matter of its size alone: which regions are chosen follows no grid."""
    assert coords is not None, "a file of levels has corners"
    check_levels(levels, coords, manifest)
    if slide is not None:
        size = (slide.width, slide.height)
        stated = (levels.level0_width or size[0], levels.level0_height or size[1])
        if stated != size or (coords >= size).any():
            raise UnusableFeatures("The levels are of a slide of another size; send those of this slide.")
    return ()


class FeaturesProcess(FileProcess):
    """A context manager around one file's child; used by one thread, which must outlive it, for one reading."""

    def __init__(self, path: Path, limits: ReaderLimits, *, command: Sequence[str] = FEATURES_COMMAND) -> None:
        super().__init__(path, limits, command, FEATURES_REPLY)

    def coords(self) -> NDArray[np.int64] | None:
        """Level-0 (x, y) in the file's order, int64 [rows, 2]; None when the file has none."""
        if not self.opened.has_coords:
            return None
        return np.frombuffer(self._coords, dtype="<i8").reshape(-1, 2).astype(np.int64)

    def rows(self, ask: Callable[[], None] = _go_on) -> NDArray[np.float32]:
        """All rows in the file's order: float32 [rows, columns], finite; `ask` is called before every batch."""
        rows, columns = self.opened.rows, self.opened.columns
        batch_rows = batch_rows_for(columns)
        features = np.empty((rows, columns), dtype=np.float32)
        self._channel.send(RowsRequest(batch_rows=batch_rows))
        for first in range(0, rows, batch_rows):
            ask()
            features[first : first + batch_rows] = self._batch(first, min(batch_rows, rows - first), columns)
        return features

    def reject(self) -> ReaderDied:
        """The error for rows that cannot be what the child said; nothing more is read."""
        return self._channel.reject_reply()

    def _open(self) -> None:
        self.opened, self._coords = self._ask_to_open(FeaturesOpened, max_body_bytes=self._limits.max_tiles * 16)
        rows = self.opened.rows
        levels = self.opened.levels
        if levels is not None and (self.opened.columns != levels.columns or not self.opened.has_coords):
            raise self._channel.reject_reply()
        if rows > self._limits.max_tiles or len(self._coords) != rows * 16 * self.opened.has_coords:
            raise self._channel.reject_reply()
        warn_of_refused_limits(self.opened.degraded)

    def _batch(self, first: int, count: int, columns: int) -> NDArray[np.float32]:
        reply, body = self._channel.receive(RowsReply, count * columns * 4)
        if (reply.first, reply.count, len(body)) != (first, count, count * columns * 4):
            raise self._channel.reject_reply()
        batch = np.frombuffer(body, dtype="<f4").reshape(count, columns)
        if not np.isfinite(batch).all():
            raise UnusableFeatures(
                f"The features hold NaN or infinite values (rows {first} to {first + count - 1}). "
                "Extract them again, or send the slide itself."
            )
        return batch
