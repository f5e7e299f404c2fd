"""A slide in, its embedding out: the story of a worker's job. No queue, no Redis, no HTTP."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled
from encoders.features_file import write_features, write_given_features
from encoders.precomputed.features_kind import features_kind
from encoders.precomputed.features_process import read_given_features
from encoders.precomputed.given_features import GivenTiles
from encoders.slide_encoder.encode import SlideEncoder
from encoders.tile_encoder.encode import TileEncoder
from encoders.tiling.plan_tiles import plan_at_target
from encoders.tiling.reader_process import ReaderLimits, ReaderProcess
from encoders.types import MppSource, SlideEmbedding, SlideFile, Stage, TileFeatures, TilePlan
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.manifest import TilingSpec

OnProgress = Callable[[Stage, int, int], None]


@dataclass(frozen=True)
class Encoders:
    """Both encoders of one installed model, on one device and warm."""

    model: InstalledModel
    tiles: TileEncoder
    slide: SlideEncoder

    @property
    def tiling(self) -> TilingSpec:
        """How this model wants slides cut."""
        return self.model.manifest.tiling


def load_encoders(model: InstalledModel, device: str) -> Encoders:
    """Loads both encoders on "cpu", "cuda", "cuda:1" …, or "auto", and runs them once; raises ModelError."""
    manifest, where = model.manifest, choose_device(device)
    encoders = Encoders(
        model,
        TileEncoder(manifest.tile_encoder, model.tile_encoder_weights, where),
        SlideEncoder(manifest.slide_encoder, model.slide_encoder_weights, where),
    )
    encoders.tiles.warm_up()
    encoders.slide.encode(_one_tile(manifest.tiling, manifest.slide_encoder.in_chans))
    return encoders


def encode_slide(
    slide: SlideFile,
    encoders: Encoders,
    *,
    mpp_override: float | None,
    limits: ReaderLimits,
    features_path: Path,
    on_progress: OnProgress,
    cancelled: threading.Event,
) -> SlideEmbedding:
    """Tiles the slide, encodes its tiles, writes the features file, encodes the slide.

    A file of precomputed features, recognised by its content, skips the steps that it replaces; given slide tokens
    leave nothing to encode and no features file to write.

    `on_progress(stage, done, total)` is called at the start and after every batch. Raises the first failure:
    a SlideError, ReaderDied, EncodeCancelled or ModelError; nothing but the reader's child has to be cleaned up,
    and it is.
    """
    if features_kind(slide.path) is not None:
        return _encode_given(slide, encoders, limits, features_path, on_progress, cancelled)
    with ReaderProcess(slide.path, limits) as reader:
        plan = _plan_tiles(reader, encoders, mpp_override, on_progress)
        features = _encode_tiles(reader, plan, encoders.tiles, on_progress, cancelled)
    write_features(features_path, features)
    tokens = _encode_features(features, encoders.slide, on_progress, cancelled)
    return _embedding(slide, encoder_id(encoders.model, mpp_override), tokens, len(plan.coords), plan.mpp_source)


def choose_device(device: str) -> torch.device:
    """The named device; "auto" is the first CUDA device, else the CPU. Raises ModelError when it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("This machine or this torch has no CUDA device; set EYEPIECE_DEVICE to cpu or auto.")
    return torch.device(device)


def _plan_tiles(
    reader: ReaderProcess, encoders: Encoders, mpp_override: float | None, on_progress: OnProgress
) -> TilePlan:
    on_progress("tile", 0, 1)
    plan = reader.plan(encoders.tiling, mpp_override)
    on_progress("tile", 1, 1)
    return plan


def _encode_tiles(
    reader: ReaderProcess,
    plan: TilePlan,
    encoder: TileEncoder,
    on_progress: OnProgress,
    cancelled: threading.Event,
) -> TileFeatures:
    total, done = len(plan.coords), 0
    parts: list[NDArray[np.float32]] = []
    on_progress("encode_tiles", 0, total)
    for batch in reader.tiles(encoder.batch_tiles):
        _stop_if(cancelled)
        parts.append(encoder.encode(batch.pixels))
        done += len(batch.pixels)
        on_progress("encode_tiles", done, total)
    features = np.concatenate(parts)
    assert len(features) == total, "every planned tile is encoded once"
    return TileFeatures(plan, features)


def _encode_features(
    features: TileFeatures, encoder: SlideEncoder, on_progress: OnProgress, cancelled: threading.Event
) -> NDArray[np.float16]:
    _stop_if(cancelled)
    on_progress("encode_slide", 0, 1)
    tokens = encoder.encode(features)
    on_progress("encode_slide", 1, 1)
    return tokens


def _encode_given(
    slide: SlideFile,
    encoders: Encoders,
    limits: ReaderLimits,
    features_path: Path,
    on_progress: OnProgress,
    cancelled: threading.Event,
) -> SlideEmbedding:
    """From tile features on, or nothing but a conversion; the µm/px of the slide's pixels does not matter."""
    manifest = encoders.model.manifest
    on_progress("encode_slide", 0, 1)
    given = read_given_features(slide.path, manifest, limits)
    _stop_if(cancelled)
    if isinstance(given, GivenTiles):
        write_given_features(features_path, given)
        side = given.statements.side_px_level0
        tokens = encoders.slide.encode_rows(given.features, given.coords, manifest.tiling.tile_px, side)
        tile_count = len(given.coords)
    else:
        tokens, tile_count = given.tokens.astype(np.float16), 0
    on_progress("encode_slide", 1, 1)
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


def _stop_if(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise EncodeCancelled("Encoding was cancelled.")


def _one_tile(tiling: TilingSpec, in_chans: int) -> TileFeatures:
    """The smallest slide there is, to warm up with."""
    plan = plan_at_target(tiling, np.zeros((1, 2), dtype=np.int64))
    return TileFeatures(plan, np.zeros((1, in_chans), dtype=np.float32))
