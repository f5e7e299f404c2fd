"""A slide in, its embedding out: the story of a worker's job. No queue, no Redis, no HTTP.

What a worker's memory is, beside models and a few batches of pixels: for each slide that it encodes at once, one array
float32 [tiles, feature_dim]. That is 6 kB a tile with 1536 features: 60 MB for 10,000 tiles, 3.1 GB for the largest
slide (500,000); and, while that slide is in the slide encoder, what the slide encoder needs for so many tiles.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encoders.caller import Caller, OnProgress
from encoders.device import choose_device
from encoders.device_errors import told_as_ours
from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled, EncoderOverflowed, UnusableFeatures
from encoders.feature_parts import PartWriter, load_features
from encoders.features_file import write_features, write_given_features
from encoders.golden_vector import read_golden
from encoders.precomputed.features_kind import features_kind
from encoders.precomputed.features_process import read_given_features
from encoders.precomputed.given_features import GivenTiles
from encoders.slide_encoder.encode import SlideAttention, SlideEncoder
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.tiling.plan_tiles import plan_at_target
from encoders.types import MppSource, SlideEmbedding, SlideFile, TileFeatures, TilePlan
from model_store.installed import InstalledModel
from model_store.manifest import TilingSpec

log = logging.getLogger(__name__)

# A slide that waits for the slide encoder looks so often whether it is still wanted.
_LOOK_EVERY_S = 0.5


# What crosses from the reader at once; the batcher makes the encoder's batches of it. A ring of larger slots costs more
# in touching its pages for the first time than in hand-overs (measured: docs/decisions/0013).
_RING_BATCH_TILES = 64


@dataclass(frozen=True)
class Encoders:
    """Both encoders of one installed model, on one device and warm; several threads may encode a slide each.

    Tiles of all slides meet in the batches of `batcher`; the slide encoder takes one slide at a time, `slide_turn`.
    Leaving the block stops the batcher.
    """

    model: InstalledModel
    tiles: TileEncoder
    slide: SlideEncoder
    batcher: TileBatcher
    slide_turn: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.batcher.close()

    @property
    def tiling(self) -> TilingSpec:
        """How this model wants slides cut."""
        return self.model.manifest.tiling


def load_encoders(model: InstalledModel, device: str, slide_attention: SlideAttention = "torch") -> Encoders:
    """Loads both encoders on "cpu", "cuda", "cuda:1" …, or "auto", and runs them as slides will: nothing is compiled
    later. Where the model has a golden vector, it goes through both.

    Raises ModelError, also for other numbers than the golden vector's, DeviceLost, DeviceOutOfMemory.
    """
    manifest, where = model.manifest, choose_device(device)
    golden = read_golden(model)
    with told_as_ours():
        tiles = TileEncoder(manifest.tile_encoder, model.tile_encoder_weights, where)
        slide = SlideEncoder(manifest.slide_encoder, model.slide_encoder_weights, where, slide_attention)
        features = tiles.warm_up(None if golden is None else golden.tile_pixels)
        slide.encode(_one_tile(manifest.tiling, manifest.slide_encoder.in_chans))
        if golden is None:
            log.warning("The model has no golden vector: whether this device computes right is not checked.")
        else:
            golden.compare(features, slide.encode(golden.slide))
        return Encoders(model, tiles, slide, TileBatcher(tiles))


def encode_slide(
    slide: SlideFile,
    encoders: Encoders,
    *,
    mpp_override: float | None,
    limits: ReaderLimits,
    features_path: Path,
    caller: Caller,
) -> SlideEmbedding:
    """Tiles the slide, encodes its tiles, writes the features file, encodes the slide.

    Tiles whose features `caller.parts` has are not encoded again. A file of precomputed features, recognised by its
    content, skips the steps that it replaces; given slide tokens leave nothing to encode and no features file to write.

    Raises the first failure: a SlideError, ReaderDied, EncodeCancelled, ModelError, DeviceLost or DeviceOutOfMemory;
    nothing but the reader's child
    has to be cleaned up, and it is. The parts stay: when the embedding is safe, it is for the caller to remove them.
    """
    if features_kind(slide.path) is not None:
        return _encode_given(slide, encoders, limits, features_path, caller)
    with ReaderProcess(slide.path, limits, folder=slide.folder) as reader:
        caller.on_opened(reader.kind, reader.reason)
        plan = _plan_tiles(reader, encoders, mpp_override, caller.on_progress)
        caller.on_warnings(plan.warnings)
        features = _encode_tiles(reader, plan, encoders, caller)
    write_features(features_path, features)
    tokens = _encode_features(features, encoders, caller)
    return _embedding(slide, encoder_id(encoders.model, mpp_override), tokens, len(plan.coords), plan.mpp_source)


def _plan_tiles(
    reader: ReaderProcess, encoders: Encoders, mpp_override: float | None, on_progress: OnProgress
) -> TilePlan:
    on_progress("tile", 0, 1)
    plan = reader.plan(encoders.tiling, mpp_override)
    on_progress("tile", 1, 1)
    return plan


def _encode_tiles(reader: ReaderProcess, plan: TilePlan, encoders: Encoders, caller: Caller) -> TileFeatures:
    """Fills one array: first with what was kept of an earlier attempt, then tile by tile."""
    total = len(plan.coords)
    features = np.empty((total, encoders.model.manifest.tile_encoder.feature_dim), dtype=np.float32)
    done = load_features(caller.parts, plan, features)
    caller.on_progress("encode_tiles", done, total)
    if done < total:
        with (
            PartWriter(caller.parts, plan, features, done) as kept,
            closing(_encoded(reader, done, encoders, caller.cancelled)) as encoded,
        ):
            for rows in encoded:
                _stop_if(caller.cancelled)
                features[done : done + len(rows)] = rows
                done += len(rows)
                kept.advance(done)
                caller.on_progress("encode_tiles", done, total)
    assert done == total, "every planned tile is encoded once"
    return TileFeatures(plan, features)


def _encoded(
    reader: ReaderProcess, first_tile: int, encoders: Encoders, cancelled: threading.Event
) -> Generator[NDArray[np.float32], None, None]:
    """Features of the tiles from `first_tile` on, in order, as they get ready."""
    with encoders.batcher.slide() as tiles:
        for batch in reader.tiles(min(_RING_BATCH_TILES, encoders.tiles.batch_tiles), first_tile):
            _stop_if(cancelled)
            tiles.put(batch.pixels)
            yield from tiles.take()
        yield from tiles.finish()


def _encode_features(features: TileFeatures, encoders: Encoders, caller: Caller) -> NDArray[np.float16]:
    with _turn(encoders.slide_turn, caller.cancelled):
        caller.on_progress("encode_slide", 0, 1)
        tokens = encoders.slide.encode(features, partial(_stop_if, caller.cancelled))
    caller.on_progress("encode_slide", 1, 1)
    return tokens


def _encode_given(
    slide: SlideFile, encoders: Encoders, limits: ReaderLimits, features_path: Path, caller: Caller
) -> SlideEmbedding:
    """From tile features on, or nothing but a conversion; the µm/px of the slide's pixels does not matter."""
    manifest = encoders.model.manifest
    caller.on_progress("encode_slide", 0, 1)
    given = read_given_features(slide.path, manifest, limits, ask=partial(_stop_if, caller.cancelled))
    _stop_if(caller.cancelled)
    if isinstance(given, GivenTiles):
        write_given_features(features_path, given)
        side = given.statements.side_px_level0
        try:
            with _turn(encoders.slide_turn, caller.cancelled):
                tokens = encoders.slide.encode_rows(
                    given.features, given.coords, manifest.tiling.tile_px, side, partial(_stop_if, caller.cancelled)
                )
        except EncoderOverflowed as error:
            largest = np.abs(given.features).max()
            raise UnusableFeatures(
                f"The slide encoder overflows on these features, whose largest value is {largest:.1e}. Send the "
                "features of the served model's own tile encoder, or the slide itself."
            ) from error
        tile_count = len(given.coords)
    else:
        tokens, tile_count = given.tokens.astype(np.float16), 0
    caller.on_progress("encode_slide", 1, 1)
    identity = encoder_id(encoders.model, features_sha256=slide.features_sha256)
    return _embedding(slide, identity, tokens, tile_count, "features")


def _embedding(
    slide: SlideFile, identity: str, tokens: NDArray[np.float16], tile_count: int, mpp_source: MppSource
) -> SlideEmbedding:
    return SlideEmbedding(
        slide_id=slide.slide_id,
        encoder_id=identity,
        tensors={"slide_tokens": tokens},
        tile_count=tile_count,
        mpp_source=mpp_source,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def _turn(lock: threading.Lock, cancelled: threading.Event) -> Iterator[None]:
    """Holds the lock; raises EncodeCancelled instead when that comes first."""
    _stop_if(cancelled)
    while not lock.acquire(timeout=_LOOK_EVERY_S):
        _stop_if(cancelled)
    try:
        yield
    finally:
        lock.release()


def _stop_if(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise EncodeCancelled("Encoding was cancelled.")


def _one_tile(tiling: TilingSpec, in_chans: int) -> TileFeatures:
    """The smallest slide there is, to warm up with."""
    plan = plan_at_target(tiling, np.zeros((1, 2), dtype=np.int64))
    return TileFeatures(plan, np.zeros((1, in_chans), dtype=np.float32))
