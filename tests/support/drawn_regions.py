"""Slides with stored tile features to draw regions on, and a worker's job that makes their embeddings."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from api_parts import stored_slide
from fakes import sample_embedding
from prometheus_client import CollectorRegistry

from encoders.caller import Caller
from encoders.evidence.cells import divide, left_out, parts_of
from encoders.regions.stored_tiles import read_tile_places
from encoders.types import SlideEmbedding
from server.api.parts import Parts
from server.encoding.evidence_job import EvidenceJob
from server.encoding.region_job import RegionJob
from server.slides.evidence_record import EvidenceRecord
from server.slides.region_record import RegionRecord
from server.slides.slide_record import SlideRecord
from server.telemetry.metrics import WorkerMetrics

# A slide of 10 × 10 tiles of tissue, 100 level-0 pixels a side.
SIDE_PX, COLUMNS, ROWS = 100, 10, 10
WHOLE = {"width": COLUMNS * SIDE_PX, "height": ROWS * SIDE_PX, "mpp": 0.5, "tile_px_level0": float(SIDE_PX)}


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """A rectangle as a request draws it."""
    return {"rectangle": {"x": x, "y": y, "width": width, "height": height}}


# The four quadrants of that slide, 25 tiles each.
QUADRANTS = [box(x, y, 500, 500) for y in (0, 500) for x in (0, 500)]


async def slide_with_tiles(parts: Parts, name: str = "slide", *, said: Any = WHOLE, **options: Any) -> SlideRecord:
    """A slide that is ready, with features as an encode leaves them; `said` are the attributes of their file."""
    record = await stored_slide(parts, name, ready=True, **options)
    path = parts.store.new_staging_path()
    x, y = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=np.arange(300, dtype=np.float32).reshape(100, 3), fletcher32=True)
        coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64) * SIDE_PX
        file.create_dataset("coords", data=coords, fletcher32=True)
        file.attrs.update(said)
    await parts.store.publish_file(path, record.paths.features(record.encoder_id), replace=True)
    return record


@dataclass
class FakeMake:
    """What a worker calls for a region; with `hold` it waits until it is released or cancelled."""

    error: Exception | None = None
    hold: bool = False
    calls: int = 0
    started: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def __call__(self, record: RegionRecord, features: Path | BinaryIO, caller: Caller) -> SlideEmbedding:
        self.calls += 1
        with h5py.File(features, "r") as file:
            assert len(file["features"]) == COLUMNS * ROWS
        self.started.set()
        while self.hold and not self.release.wait(0.01):
            caller.ask()
        if self.error is not None:
            raise self.error
        embedding = sample_embedding(record.slide_id, record.encoder_id, value=record.tiles / 256)
        return replace(embedding, tile_count=record.tiles, region_id=record.id)


@dataclass
class FakeLeaveOut:
    """What a worker calls for evidence: rows that say which of the slide's tiles are left; the first number of a row is
    the share of `important` ones among them."""

    important: frozenset[int] = frozenset()
    error: Exception | None = None
    parts: int = 0

    def __call__(
        self, record: EvidenceRecord, features: Path | BinaryIO, caller: Caller, first_part: int
    ) -> Iterator[SlideEmbedding]:
        if self.error is not None:
            raise self.error
        places = read_tile_places(features)
        chosen = np.arange(len(places.coords)) if record.drawn is None else places.inside(record.drawn)
        cells = divide(places.coords[chosen], places.side_px, record.parent)
        for part in parts_of(left_out(cells, len(chosen), record.id))[first_part:]:
            self.parts += 1
            made = {}
            for missing in part:
                kept = set(chosen.tolist()) - set(chosen[missing.tiles].tolist())
                share = len(kept & self.important) / max(1, len(self.important))
                made[missing.name] = np.full((32, 96), share, np.float16)
            sample = sample_embedding(record.slide_id, record.encoder_id)
            yield replace(sample, tensors=made, tile_count=len(chosen), region_id=record.id)


def evidence_job(parts: Parts, make: FakeLeaveOut) -> EvidenceJob:
    """The evidence job of a worker over the same parts as the API."""
    return EvidenceJob(
        settings=parts.settings,
        store=parts.store,
        slides=parts.slides,
        records=parts.evidence,
        embeddings=parts.embeddings,
        usage=parts.usage,
        metrics=WorkerMetrics(CollectorRegistry()),
        makes={"": make},
        on_device_lost=lambda: None,
    )


def region_job(parts: Parts, make: FakeMake) -> RegionJob:
    """The region job of a worker over the same parts as the API."""
    return RegionJob(
        settings=parts.settings,
        store=parts.store,
        slides=parts.slides,
        records=parts.regions,
        embeddings=parts.embeddings,
        usage=parts.usage,
        metrics=WorkerMetrics(CollectorRegistry()),
        makes={"": make},
        on_device_lost=lambda: None,
    )
