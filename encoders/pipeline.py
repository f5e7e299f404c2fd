"""A slide in, its embedding out: the story of a worker's job. No queue, no Redis, no HTTP.

What a worker's memory is, beside models and a few batches of pixels: for each slide that it encodes at once, one array
float32 [tiles, feature_dim] for each input of the model. That is 6 kB a tile with 1536 features: 60 MB for 10,000
tiles, 3.1 GB for the largest slide (500,000); and, while that slide is in the slide stage, what the stage needs for so
many tiles.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoders.caller import Caller
from encoders.device import choose_device
from encoders.device_errors import translated_device_errors
from encoders.encoder_id import encoder_id
from encoders.errors import EncoderOverflowed, UnusableFeatures
from encoders.familiarity import FamiliarityStatistics, read_statistics
from encoders.features_file import write_given_features
from encoders.golden_vector import read_golden
from encoders.hierarchical.levels_file import write_given_levels
from encoders.precomputed.features_kind import features_kind
from encoders.precomputed.features_process import read_given_features
from encoders.precomputed.given_features import GivenSlideTokens, GivenTiles
from encoders.slide_encoder.encode import SlideAttention
from encoders.slide_stages.kinds import load_slide_stage
from encoders.slide_stages.slide_stage import SlideInHand, SlideStage, Tensors
from encoders.slide_stages.tile_input import TileInput, load_tile_encoders
from encoders.slide_stages.tile_stage import ReadTiles, thinning
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import MppSource, SlideEmbedding, SlideFile
from model_store.contracts.slide_rows import ROWS
from model_store.installed import InstalledModel

log = logging.getLogger(__name__)

# A slide that waits for the slide stage looks so often whether it is still wanted.
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Encoders:
    """All that one installed model has before its language model, on one device and warm; several threads may encode a
    slide each.

    Tiles of all slides meet in the batches of their input; the slide stage takes one slide at a time, `slide_turn`.
    Leaving the block stops the batchers and the stage's threads.
    """

    model: InstalledModel
    inputs: Mapping[str, TileInput]
    stage: SlideStage[Any]
    familiarity: FamiliarityStatistics | None = None
    slide_turn: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for given in self.inputs.values():
            given.batcher.close()
        self.stage.close()


def load_encoders(model: InstalledModel, device: str, slide_attention: SlideAttention = "torch") -> Encoders:
    """Loads the model on "cpu", "cuda", "cuda:1" …, or "auto", and runs it as slides will: nothing is compiled later.
    Where the model has a golden vector, it goes through all of it.

    Raises ModelError, also for other numbers than the golden vector's, DeviceLost, DeviceOutOfMemory.
    """
    where, specs = choose_device(device), model.manifest.inputs
    golden = read_golden(model)
    with translated_device_errors():
        tiles = load_tile_encoders(model, where)
        stage = load_slide_stage(model, where, slide_attention)
        pixels = {name: None if golden is None else golden.tile_pixels(name) for name in specs}
        features = {name: encoder.warm_up(pixels[name]) for name, encoder in tiles.items()}
        stage.warm_up()
        if golden is None:
            log.warning("The model has no golden vector: whether this device computes right is not checked.")
        else:
            golden.compare(features, golden.output_of(stage))
        inputs = {name: TileInput(specs[name], encoder, TileBatcher(encoder)) for name, encoder in tiles.items()}
        return Encoders(model, inputs, stage, read_statistics(model))


def encode_slide(
    slide: SlideFile,
    encoders: Encoders,
    *,
    mpp_override: float | None,
    limits: ReaderLimits,
    features_path: Path,
    caller: Caller,
) -> SlideEmbedding:
    """Reads what the slide stage needs of the slide, writes the features file, encodes the slide.

    What `caller.parts` has of it is not computed again. A file of precomputed features, recognised by its
    content, skips the steps that it replaces; given rows leave nothing to encode and no features file to write.

    Raises the first failure: a SlideError, ReaderDied, EncodeCancelled, ModelError, DeviceLost or DeviceOutOfMemory;
    nothing but the reader's child
    has to be cleaned up, and it is. The parts stay: when the embedding is safe, it is for the caller to remove them.
    """
    if features_kind(slide.path) is not None:
        return _encode_given(slide, encoders, limits, features_path, caller)
    with ReaderProcess(slide.path, limits, folder=slide.folder) as reader:
        caller.on_opened(reader.kind, reader.reason)
        budget = None if slide.budget is None else slide.budget.of_slide(slide.slide_id)
        read = encoders.stage.read(SlideInHand(reader, encoders.inputs, mpp_override, caller, budget))
    identity = encoder_id(encoders.model, mpp_override, budget=slide.budget)
    read.write(features_path, slide.slide_id, identity)
    if isinstance(read, ReadTiles):
        _tell_familiarity(encoders, read.first_features, caller)
    with slide_turn(encoders.slide_turn, caller):
        caller.on_progress("encode_slide", 0, 1)
        tensors = encoders.stage.encode(read, caller.ask)
    caller.on_progress("encode_slide", 1, 1)
    return _embedding(slide, identity, tensors, read.tile_count, read.mpp_source)


def _encode_given(
    slide: SlideFile, encoders: Encoders, limits: ReaderLimits, features_path: Path, caller: Caller
) -> SlideEmbedding:
    """From tile features or levels on, or nothing but a conversion; the µm/px of the slide's pixels does not matter."""
    identity = encoder_id(encoders.model, features_sha256=slide.features_sha256)
    caller.on_progress("encode_slide", 0, 1)
    given = read_given_features(slide.path, encoders.model.manifest, limits, ask=caller.ask)
    caller.ask()
    tensors: Tensors
    if not isinstance(given, GivenSlideTokens):
        if isinstance(given, GivenTiles):
            write_given_features(features_path, given)
            _tell_familiarity(encoders, given.features, caller)
        else:
            write_given_levels(features_path, given, slide.slide_id, identity)
        # Also when it is nothing: what an earlier encode said of other features does not hold of these.
        manifest = encoders.model.manifest
        caller.on_warnings(thinning(manifest.slide_stage, len(given.coords), manifest.inputs))
        try:
            with slide_turn(encoders.slide_turn, caller):
                tensors = encoders.stage.encode_given(given, caller.ask)
        except EncoderOverflowed as error:
            raise UnusableFeatures(
                f"The slide encoder overflows on these features, whose largest value is {given.largest:.1e}. Send the "
                "features of the served model's own encoder, or the slide itself."
            ) from error
        tile_count = len(given.coords)
    else:
        tensors, tile_count = {ROWS: given.tokens.astype(np.float16)}, 0
    caller.on_progress("encode_slide", 1, 1)
    return _embedding(slide, identity, tensors, tile_count, "features")


def _tell_familiarity(encoders: Encoders, features: NDArray[np.float32], caller: Caller) -> None:
    if encoders.familiarity is not None:
        caller.on_familiarity(encoders.familiarity.measure(features))


def _embedding(
    slide: SlideFile, identity: str, tensors: Tensors, tile_count: int, mpp_source: MppSource
) -> SlideEmbedding:
    return SlideEmbedding(
        slide_id=slide.slide_id,
        encoder_id=identity,
        tensors=tensors,
        tile_count=tile_count,
        mpp_source=mpp_source,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def slide_turn(lock: threading.Lock, caller: Caller) -> Iterator[None]:
    """Holds the lock; raises EncodeCancelled instead when that comes first."""
    caller.ask()
    while not lock.acquire(timeout=_LOOK_EVERY_S):
        caller.ask()
    try:
        yield
    finally:
        lock.release()
