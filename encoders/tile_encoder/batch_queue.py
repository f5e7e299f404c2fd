"""Forms batches of several slides' tiles, and sorts the features back. No model and no thread of its own.

One batch is filled at a time, by all open slides; a full one queues up for the encoder. A batch that is not full goes
when somebody waits for it: at once if no open slide has more tiles to give, else after a short delay.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoders.tile_encoder.staging import Staging

# How long the end of a slide waits for tiles of slower slides: little beside reading a slide, some batches on a GPU.
DELAY_S: Final = 0.25
# While the device computes, nothing tells us that it is done; so often we look. A batch takes some 100 ms.
_LOOK_EVERY_S: Final = 0.001


@dataclass(eq=False)
class OpenSlide:
    """What one slide has in the queue. To be touched under the queue's lock."""

    features: list[NDArray[np.float32]] = field(default_factory=list)
    pending_tiles: int = 0
    finished_at: float | None = None
    error: Exception | None = None


@dataclass(eq=False)
class Batch:
    """Rows 0 … tiles - 1 of a staging, in the order in which they were taken: so many of this slide, so many of that.

    `writers` are still copying their pixels.
    """

    staging: Staging
    owners: list[tuple[OpenSlide, int]] = field(default_factory=list)
    tiles: int = 0
    writers: int = 0

    @property
    def room(self) -> int:
        """How many more tiles fit."""
        return len(self.staging.pixels) - self.tiles

    def add(self, slide: OpenSlide, tiles: int) -> None:
        """The next rows are this slide's."""
        if self.owners and self.owners[-1][0] is slide:
            tiles_before = self.owners.pop()[1]
            self.owners.append((slide, tiles_before + tiles))
        else:
            self.owners.append((slide, tiles))
        self.tiles += tiles


class BatchQueue:
    """Between the threads that put tiles and the one that encodes them; holds no more batches than stagings."""

    def __init__(self, stagings: Sequence[Staging]) -> None:
        self._changed = threading.Condition()
        self._free = list(stagings)
        self._filling: Batch | None = None
        self._queued: deque[Batch] = deque()
        self._slides: set[OpenSlide] = set()
        self._closed_by: Exception | None = None

    def open(self) -> OpenSlide:
        """A slide that will put tiles; partial batches wait for it until it finishes or leaves."""
        with self._changed:
            slide = OpenSlide(error=self._closed_by)
            self._slides.add(slide)
            return slide

    def leave(self, slide: OpenSlide) -> None:
        """Forgets the slide; what it still has in batches is nobody's."""
        with self._changed:
            self._slides.discard(slide)
            if self._filling is not None and not self._filling.writers and self._is_abandoned(self._filling):
                self._free.append(self._filling.staging)
                self._filling = None
            self._changed.notify_all()

    @contextmanager
    def room(self, slide: OpenSlide, wanted: int) -> Iterator[NDArray[np.uint8]]:
        """Rows of the batch that is being filled, 1 … wanted of them, to be written in the block.

        Waits while all stagings are in use; raises the error of a slide that has failed.
        """
        batch, rows = self._reserve(slide, wanted)
        try:
            yield rows
        finally:
            with self._changed:
                batch.writers -= 1
                self._changed.notify_all()

    def take(self, slide: OpenSlide) -> list[NDArray[np.float32]]:
        """The features that are ready, in order; raises the error of a slide that has failed."""
        with self._changed:
            return _taken(slide)

    def finish(self, slide: OpenSlide) -> None:
        """This slide has no more tiles."""
        with self._changed:
            slide.finished_at = time.monotonic()
            self._changed.notify_all()

    def wait(self, slide: OpenSlide) -> list[NDArray[np.float32]]:
        """As `take`, but waits for some; an empty list says that all have come."""
        with self._changed:
            self._changed.wait_for(lambda: slide.features or slide.error or not slide.pending_tiles)
            return _taken(slide)

    def next(self, running: Batch | None) -> Batch | None:
        """The next batch to start, or None when there is something else to do.

        While `running` is computed that is to fetch its features, else to end because the queue was closed.
        """
        with self._changed:
            while running is None or not running.staging.is_back():
                if (batch := self._startable()) is not None:
                    return batch
                if running is None and self._closed_by is not None:
                    return None
                self._changed.wait(_LOOK_EVERY_S if running else self._patience_s())
            return None

    def deliver(self, batch: Batch, results: Sequence[NDArray[np.float32] | Exception]) -> None:
        """Hands out a batch's features, one array (or what went wrong) per owner; its staging is free again."""
        with self._changed:
            for (slide, tiles), result in zip(batch.owners, results, strict=True):
                slide.pending_tiles -= tiles
                if isinstance(result, Exception):
                    slide.error = slide.error or result
                else:
                    slide.features.append(result)
            self._free.append(batch.staging)
            self._changed.notify_all()

    def close(self, error: Exception) -> None:
        """Fails every slide that is open or will be; nothing is started any more. The first error stays."""
        with self._changed:
            self._closed_by = self._closed_by or error
            for slide in self._slides:
                slide.error = slide.error or error
            self._changed.notify_all()

    def _reserve(self, slide: OpenSlide, wanted: int) -> tuple[Batch, NDArray[np.uint8]]:
        with self._changed:
            self._changed.wait_for(lambda: slide.error or self._filling or self._free)
            if slide.error is not None:
                raise slide.error
            if self._filling is None:
                self._filling = Batch(self._free.pop())
            return self._filling, self._rows(self._filling, slide, wanted)

    def _rows(self, batch: Batch, slide: OpenSlide, wanted: int) -> NDArray[np.uint8]:
        first, count = batch.tiles, min(wanted, batch.room)
        batch.add(slide, count)
        batch.writers += 1
        slide.pending_tiles += count
        if not batch.room:
            self._end_filling(batch)
        return batch.staging.pixels[first : first + count]

    def _startable(self) -> Batch | None:
        if self._filling is not None and self._patience_s() == 0:
            self._end_filling(self._filling)
        while self._closed_by is None and self._queued and not self._queued[0].writers:
            batch = self._queued.popleft()
            if not self._is_abandoned(batch):
                return batch
            self._free.append(batch.staging)
            self._changed.notify_all()
        return None

    def _end_filling(self, batch: Batch) -> None:
        self._queued.append(batch)
        self._filling = None

    def _patience_s(self) -> float | None:
        """How long the batch that is being filled may wait for more tiles; None: until something happens."""
        waiting = [] if self._filling is None else [slide.finished_at for slide, _ in self._filling.owners]
        since = min((at for at in waiting if at is not None), default=None)
        if since is None:
            return None
        if all(slide.finished_at is not None for slide in self._slides):
            return 0
        return max(0, since + DELAY_S - time.monotonic())

    def _is_abandoned(self, batch: Batch) -> bool:
        return all(slide not in self._slides or slide.error for slide, _ in batch.owners)


def _taken(slide: OpenSlide) -> list[NDArray[np.float32]]:
    if slide.error is not None:
        raise slide.error
    taken, slide.features = slide.features, []
    return taken
