"""A worker's pipeline under observation: what each stage takes, and a tile encoder that takes nothing."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.process_counters import cpu_s, peak_mb, read_mb
from benchmarks.take_turns import Cost
from encoders.pipeline import Encoders, load_encoders
from encoders.slide_stages.tile_input import TileInput
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.staging import Staging
from encoders.types import Stage
from model_store.packaged_models import install_packaged

_READER: Final = "encoders.tiling.isolation.reader_child"
# As published: tiles of 256 px, of which the encoder sees the middle.
_TILE_PX: Final = 256


class InstantTileEncoder(TileEncoder):
    """Its features are the first pixels of a tile: no time at all, and still different for every tile."""

    def start(self, staging: Staging) -> None:
        """See TileEncoder."""
        side = int(np.ceil((self._spec.feature_dim / 3) ** 0.5))
        rows = staging.pixels[:, :side, :side].reshape(len(staging.pixels), -1)[:, : self._spec.feature_dim]
        staging.bring_back(torch.from_numpy(rows.astype(np.float32)))


@dataclass(frozen=True)
class Encoded:
    """One slide: seconds of each stage, the encoder's own busy and idle seconds, peaks and what the reader read in 10^6
    bytes."""

    tiles: int
    tile_stage: Cost
    stages_s: dict[Stage, float]
    busy_s: float
    idle_s: float
    reader_peak_mb: float
    worker_peak_mb: float
    reader_read_mb: float


class Watch:
    """Looks at the clocks whenever the pipeline says that a stage begins or ends."""

    def __init__(self, batcher: TileBatcher) -> None:
        self._batcher = batcher
        self._began: dict[Stage, float] = {}
        self.stages_s: dict[Stage, float] = {}
        self.tiles = 0
        self._before = self._after = (0.0, 0.0, 0.0)
        self.reader_peak_mb = self.reader_read_mb = 0.0

    def on_progress(self, stage: Stage, done: int, total: int) -> None:
        """As `Caller.on_progress`."""
        if done == 0:
            self._began[stage] = time.perf_counter()
            if stage == "encode_tiles":
                self._before = self._clocks()
        if done == total:
            self.stages_s[stage] = time.perf_counter() - self._began[stage]
            if stage == "encode_tiles":
                self.tiles, self._after = total, self._clocks()
                self.reader_peak_mb, self.reader_read_mb = peak_mb(reader_pid()), read_mb(reader_pid())

    def encoded(self) -> Encoded:
        """What was seen."""
        cpu, busy, idle = (after - before for after, before in zip(self._after, self._before, strict=True))
        cost = Cost(cpu, self.stages_s["encode_tiles"])
        return Encoded(self.tiles, cost, self.stages_s, busy, idle, self.reader_peak_mb, peak_mb(), self.reader_read_mb)

    def _clocks(self) -> tuple[float, float, float]:
        return time.process_time() + cpu_s(reader_pid()), self._batcher.busy_s, self._batcher.idle_s


def instant_encoders(folder: Path, device: str = "cpu") -> Encoders:
    """The demo model with the tiles of published encoders and a tile encoder that takes no time; installed below
    `folder`."""
    demo = install_packaged(folder / "models", "demo")
    with load_encoders(demo, device) as loaded:  # as it is: its golden vector fits its own tiles
        pass
    model = replace(demo, manifest=demo.manifest.with_inputs(tiling={"tile_px": _TILE_PX}))
    [(name, spec)] = model.manifest.inputs.items()
    tiles = InstantTileEncoder(spec.tile_encoder, model.file(spec.tile_encoder.weights), torch.device("cpu"))
    return replace(loaded, model=model, inputs={name: TileInput(spec, tiles, TileBatcher(tiles))})


def reader_pid() -> int:
    """The child that reads the slide; there is one while it is encoded."""
    (child,) = (each for each in psutil.Process().children() if _READER in each.cmdline())
    return int(child.pid)
