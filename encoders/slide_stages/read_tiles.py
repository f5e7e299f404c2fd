"""Steps 3 and 4 for every input of a model: plan the tiles, encode them, go on where a killed attempt stopped."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.caller import Caller
from encoders.feature_parts import FeatureParts, PartWriter, load_features
from encoders.slide_stages.slide_stage import SlideInHand
from encoders.slide_stages.tile_input import TileInput
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.types import SlideWarning, TileFeatures, TilePlan

# What crosses from the reader at once; the batcher makes the encoder's batches of it. A ring of larger slots costs more
# in touching its pages for the first time than in hand-overs (measured: docs/decisions/0013).
_RING_BATCH_TILES = 64


def plan_inputs(slide: SlideInHand) -> dict[str, TilePlan]:
    """The tiles of every input, all planned before the first is encoded: what cannot be used is known at once."""
    plans: dict[str, TilePlan] = {}
    slide.caller.on_progress("tile", 0, len(slide.inputs))
    for name, given in slide.inputs.items():
        plans[name] = slide.reader.plan(given.spec.tiling, slide.mpp_override, slide.budget)
        slide.caller.on_progress("tile", len(plans), len(slide.inputs))
    return plans


def warnings_of(plans: Sequence[TilePlan]) -> tuple[SlideWarning, ...]:
    """What is doubtful about the slide, each said once."""
    return tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings))


def encode_inputs(slide: SlideInHand, plans: dict[str, TilePlan]) -> dict[str, TileFeatures]:
    """The features of every planned tile, input by input; progress counts the tiles of all of them."""
    features = {
        name: np.empty((len(plans[name].coords), given.spec.tile_encoder.feature_dim), dtype=np.float32)
        for name, given in slide.inputs.items()
    }
    parts = {name: _parts_of(slide.caller.parts, name, is_first=not index) for index, name in enumerate(slide.inputs)}
    kept = {name: load_features(parts[name], plans[name], features[name]) for name in plans}
    progress = _Progress(slide.caller, sum(kept.values()), sum(len(rows) for rows in features.values()))
    for name, given in slide.inputs.items():
        plan, rows = plans[name], features[name]
        if kept[name] == len(rows):
            continue
        if len(plans) > 1:  # tiles are of the reader's last plan
            slide.reader.plan(given.spec.tiling, slide.mpp_override, slide.budget)
        _encode(slide.reader, given, rows, kept[name], PartWriter(parts[name], plan, rows, kept[name]), progress)
    return {name: TileFeatures(plans[name], features[name]) for name in plans}


class _Progress:
    """Tells the caller how many tiles of all inputs are ready."""

    def __init__(self, caller: Caller, done: int, total: int) -> None:
        self.caller, self._done, self._total = caller, done, total
        caller.on_progress("encode_tiles", done, total)

    def add(self, tiles: int) -> None:
        self._done += tiles
        self.caller.on_progress("encode_tiles", self._done, self._total)


def _encode(
    reader: ReaderProcess, given: TileInput, rows: NDArray[np.float32], done: int, kept: PartWriter, progress: _Progress
) -> None:
    """Fills `rows` from `done` on, tile by tile."""
    caller = progress.caller
    with kept, closing(_encoded(reader, done, given, caller)) as encoded:
        for batch in encoded:
            caller.ask()
            rows[done : done + len(batch)] = batch
            done += len(batch)
            kept.advance(done)
            progress.add(len(batch))
    assert done == len(rows), "every planned tile is encoded once"


def _encoded(
    reader: ReaderProcess, first_tile: int, given: TileInput, caller: Caller
) -> Generator[NDArray[np.float32], None, None]:
    """Features of the tiles from `first_tile` on, in order, as they get ready."""
    with given.batcher.slide() as tiles:
        for batch in reader.tiles(min(_RING_BATCH_TILES, given.tiles.batch_tiles), first_tile):
            caller.ask()
            tiles.put(batch.pixels)
            yield from tiles.take()
        yield from tiles.finish()


def _parts_of(parts: FeatureParts, name: str, *, is_first: bool) -> FeatureParts:
    return parts if is_first else _NamedParts(parts, f"{name}-")


@dataclass(frozen=True)
class _NamedParts:
    """The parts of one input among those of others."""

    parts: FeatureParts
    prefix: str

    def names(self) -> Sequence[str]:
        """Those of this input."""
        mine = (name for name in self.parts.names() if name.startswith(self.prefix))
        return [name.removeprefix(self.prefix) for name in mine]

    def read(self, name: str) -> bytes | None:
        """See FeatureParts."""
        return self.parts.read(self.prefix + name)

    def write(self, name: str, content: bytes) -> Future[bool]:
        """See FeatureParts."""
        return self.parts.write(self.prefix + name, content)
