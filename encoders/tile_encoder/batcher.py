"""One thread that keeps the tile encoder's device busy with the tiles of all slides that are being encoded.

While one batch is computed, the next is filled and goes to the device. Slides share batches, so that the end of one
slide is not a batch of its own. A tile's features do not depend on its neighbours, but for rounding: a library may add
up in another order at another row of the batch. On one CPU thread they were always the same bits (tested), on two not
for the smallest products. A slide that is alone in the batcher has its tiles at the same rows every time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoders.device_errors import translated_device_errors
from encoders.errors import DeviceLost, EncodeCancelled
from encoders.tile_encoder.batch_queue import Batch, BatchQueue, OpenSlide
from encoders.tile_encoder.busy_time import BusyTime
from encoders.tile_encoder.encode import TileEncoder, centre_crop
from model_store.errors import ModelError

# One is computed, one is on its way to the device or back, one is being filled.
_STAGINGS: Final = 3


class SlideTiles:
    """One slide's way through the batcher; one thread uses it."""

    def __init__(self, queue: BatchQueue, slide: OpenSlide, input_px: int) -> None:
        self._queue = queue
        self._slide = slide
        self._input_px = input_px

    def put(self, pixels: NDArray[np.uint8]) -> None:
        """uint8 RGB [n, P, P, 3], any n, copied before this returns.

        Waits while all buffers are in use. Raises ModelError for tiles that are too small, EncodeCancelled when the
        batcher was closed, and what the encoder raised for a batch with tiles of this slide.
        """
        rest = centre_crop(pixels, self._input_px)
        while len(rest):
            with self._queue.room(self._slide, len(rest)) as rows:
                rows[:] = rest[: len(rows)]
            rest = rest[len(rows) :]

    def take(self) -> list[NDArray[np.float32]]:
        """Features [n, D] that are ready and were not taken yet, in the order of the tiles; raises as `put`."""
        return self._queue.take(self._slide)

    def finish(self) -> Iterator[NDArray[np.float32]]:
        """No more tiles come: the features that were not taken yet, in order, as they get ready; raises as `put`."""
        self._queue.finish(self._slide)
        return self._rest()

    def _rest(self) -> Iterator[NDArray[np.float32]]:
        while features := self._queue.wait(self._slide):
            yield from features


class TileBatcher:
    """Owns the encoder from now on: nobody else may compute with it until `close`. Any number of threads."""

    def __init__(self, encoder: TileEncoder) -> None:
        self._encoder = encoder
        self._queue = BatchQueue([encoder.staging() for _ in range(_STAGINGS)])
        self._time = BusyTime()
        self._tiles = self._padded_tiles = 0
        self._thread = threading.Thread(target=self._run, name="tile-encoder", daemon=True)
        self._thread.start()

    @contextmanager
    def slide(self) -> Iterator[SlideTiles]:
        """For the tiles of one slide; leaving early discards those that are on their way."""
        opened = self._queue.open()
        try:
            yield SlideTiles(self._queue, opened, self._encoder.input_px)
        finally:
            self._queue.leave(opened)

    def close(self) -> None:
        """Ends the thread after the batch in hand; slides that are open get EncodeCancelled."""
        self._queue.close(EncodeCancelled("The tile encoder is being shut down."))
        self._thread.join()

    @property
    def busy_s(self) -> float:
        """Seconds in which at least one batch was being computed."""
        return self._time.busy_s

    @property
    def idle_s(self) -> float:
        """Seconds in which the device waited for tiles."""
        return self._time.idle_s

    @property
    def tiles(self) -> int:
        """How many tiles were computed."""
        return self._tiles

    @property
    def pass_tiles(self) -> int:
        """How many tiles the device computes at once; fewer than a batch since its memory did not do for that."""
        return self._encoder.pass_tiles

    @property
    def refused_passes(self) -> int:
        """How often the device's memory did not do for a pass."""
        return self._encoder.refused_passes

    @property
    def padded_tiles(self) -> int:
        """How many rows of batches were computed without a tile in them."""
        return self._padded_tiles

    def _run(self) -> None:
        try:
            self._work()
        finally:  # whatever ends this thread, nobody waits for it
            self._queue.close(DeviceLost("The tile encoder has stopped; restart the worker."))

    def _work(self) -> None:
        running: Batch | None = None
        while True:
            if running is None:
                self._time.switch(False)
            batch = self._queue.next(running)
            if batch is None and running is None:
                return
            self._time.switch(True)
            started = batch if batch is not None and self._start(batch) else None
            if running is not None:
                self._fetch(running)
            running = started

    def _start(self, batch: Batch) -> bool:
        """Whether it computes now; if not, its slides have failed and the next batch may well succeed."""
        try:
            with translated_device_errors():
                self._encoder.start(batch.staging)
        except Exception as error:  # noqa: BLE001 - it is raised in the slides' threads
            self._queue.deliver(batch, [error] * len(batch.owners))
            return False
        self._tiles += batch.tiles
        self._padded_tiles += batch.room
        return True

    def _fetch(self, batch: Batch) -> None:
        try:
            with translated_device_errors():
                features = batch.staging.features(batch.tiles)
        except Exception as error:  # noqa: BLE001 - it is raised in the slides' threads
            self._queue.deliver(batch, [error] * len(batch.owners))
            return
        ends = np.cumsum([tiles for _, tiles in batch.owners])
        self._queue.deliver(batch, [self._checked(part) for part in np.split(features, ends[:-1])])

    def _checked(self, features: NDArray[np.float32]) -> NDArray[np.float32] | ModelError:
        """One slide's overflow is not its neighbours'."""
        try:
            self._encoder.require_finite(features)
        except ModelError as error:
            return error
        return features
