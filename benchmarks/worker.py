"""A worker from slide to embedding: reader process, batches, tile encoder, slide encoder, as they run in production.

    python -m benchmarks.worker
    python -m benchmarks.worker --model wsi-llava --models-dir data/models --device cuda

Without --model the tile encoder computes next to nothing, so that what feeds it is what is measured: CPU seconds of all
processes for the tiles of a slide, beside decoding the same tiles inline. With --model it is the real one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.process_counters import cpu_s, peak_mb
from benchmarks.synthetic_slides import FOLDER, synthetic_slide
from benchmarks.take_turns import Cost, Turns, cost_of, spread, take_turns
from benchmarks.write_results import table, turns_record, write_result
from encoders.caller import Caller
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.slide_stages.tile_input import TileInput
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.staging import Staging
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.decode_buffer import decode_buffer
from encoders.types import SlideFile, Stage
from model_store.installed import open_model
from model_store.packaged_models import install_packaged

SLIDE = "s420"
INLINE, WORKER = "decoded inline", "worker"
LEAST_RATIO = 0.85
MOST_MB = 1_000.0
PACKAGES = ("simplejpeg", "numpy", "opencv-python-headless", "openslide-bin", "torch", "timm")
_READER = "encoders.tiling.isolation.reader_child"
# As published: tiles of 256 px, of which the encoder sees the middle.
_TILE_PX = 256


class InstantTileEncoder(TileEncoder):
    """Its features are the first pixels of a tile: no time at all, and still different for every tile."""

    def start(self, staging: Staging) -> None:
        """See TileEncoder."""
        side = int(np.ceil((self._spec.feature_dim / 3) ** 0.5))
        rows = staging.pixels[:, :side, :side].reshape(len(staging.pixels), -1)[:, : self._spec.feature_dim]
        staging.bring_back(torch.from_numpy(rows.astype(np.float32)))


@dataclass(frozen=True)
class Encoded:
    """One slide: seconds of each stage, the encoder's own busy and idle seconds, peaks in 10^6 bytes."""

    tiles: int
    tile_stage: Cost
    stages_s: dict[Stage, float]
    busy_s: float
    idle_s: float
    reader_peak_mb: float
    worker_peak_mb: float


class Watch:
    """Looks at the clocks whenever the pipeline says that a stage begins or ends."""

    def __init__(self, batcher: TileBatcher) -> None:
        self._batcher = batcher
        self._began: dict[Stage, float] = {}
        self.stages_s: dict[Stage, float] = {}
        self.tiles = 0
        self._before = self._after = (0.0, 0.0, 0.0)
        self.reader_peak_mb = 0.0

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
                self.reader_peak_mb = peak_mb(_reader_pid())

    def encoded(self) -> Encoded:
        """What was seen."""
        cpu, busy, idle = (after - before for after, before in zip(self._after, self._before, strict=True))
        cost = Cost(cpu, self.stages_s["encode_tiles"])
        return Encoded(self.tiles, cost, self.stages_s, busy, idle, self.reader_peak_mb, peak_mb())

    def _clocks(self) -> tuple[float, float, float]:
        return time.process_time() + cpu_s(_reader_pid()), self._batcher.busy_s, self._batcher.idle_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    cv2.setNumThreads(1)
    path = synthetic_slide(SLIDE, options.folder)
    with tempfile.TemporaryDirectory() as folder:
        encoders = _encoders(options, Path(folder))
        encoded: list[Encoded] = []
        with encoders:
            work = {INLINE: _decode_inline(path, encoders), WORKER: _encode(path, encoders, Path(folder), encoded)}
            turns = take_turns(work, options.rounds)
    print(report(turns, encoded, options.model))
    content = {
        "slide": SLIDE,
        "model": options.model or "instant tile encoder",
        "device": options.device,
        "decode_threads": ReaderLimits().decode_threads,
        "targets": {"cpu_ratio": LEAST_RATIO, "reader_peak_mb": MOST_MB},
        "cpu_ratio": asdict(turns.cpu_ratio(WORKER, INLINE)),
        "slides": [asdict(one) for one in encoded],
        **turns_record(turns),
    }
    print(f"\n{write_result('worker', content, PACKAGES)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an installed model; without it the tile encoder computes next to nothing")
    parser.add_argument("--models-dir", type=Path, default=Path("data/models"), help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def _encoders(options: argparse.Namespace, folder: Path) -> Encoders:
    if options.model is not None:
        return load_encoders(open_model(options.models_dir, options.model), options.device)
    demo = install_packaged(folder / "models", "demo")
    with load_encoders(demo, options.device) as loaded:  # as it is: its golden vector fits its own tiles
        pass
    model = replace(demo, manifest=demo.manifest.with_inputs(tiling={"tile_px": _TILE_PX}))
    [(name, spec)] = model.manifest.inputs.items()
    tiles = InstantTileEncoder(spec.tile_encoder, model.file(spec.tile_encoder.weights), torch.device("cpu"))
    return replace(loaded, model=model, inputs={name: TileInput(spec, tiles, TileBatcher(tiles))})


def _input(encoders: Encoders) -> TileInput:
    [given] = encoders.inputs.values()
    return given


def _decode_inline(path: Path, encoders: Encoders) -> Callable[[int], Cost]:
    """Every planned tile decoded into a batch by one thread of this process, and nothing else."""
    limits = ReaderLimits()
    with ReaderProcess(path, limits) as process:
        plan = process.plan(_input(encoders).spec.tiling, None)
    reader = open_reader(path, limits).reader
    batch = decode_buffer(_input(encoders).tiles.batch_tiles, plan.tile_px, plan.tile_px, 3)

    def decode() -> None:
        for index, (x, y) in enumerate(plan.coords):
            read_tile(reader, plan, int(x), int(y), batch[index % len(batch)])

    return lambda _: cost_of(decode)


def _encode(path: Path, encoders: Encoders, folder: Path, encoded: list[Encoded]) -> Callable[[int], Cost]:
    """The whole slide through the pipeline; what counts is the stage of the tiles."""

    def turn(_: int) -> Cost:
        watch = Watch(_input(encoders).batcher)
        encode_slide(
            SlideFile("0" * 64, path),
            encoders,
            mpp_override=None,
            limits=ReaderLimits(),
            features_path=folder / "features.h5",
            caller=Caller(on_progress=watch.on_progress),
        )
        encoded.append(watch.encoded())
        return encoded[-1].tile_stage

    return turn


def _reader_pid() -> int:
    """The child that reads the slide; there is one while it is encoded."""
    (child,) = (each for each in psutil.Process().children() if _READER in each.cmdline())
    return int(child.pid)


def report(turns: Turns, encoded: Sequence[Encoded], model: str | None) -> str:
    """The table of the stages, and whether the targets are met."""
    ratio = turns.cpu_ratio(WORKER, INLINE)
    rows = [_row(one) for one in encoded]
    header = (
        "tiles",
        "plan s",
        "tiles s",
        "slide s",
        "tiles/s",
        "tiles/CPU-s",
        "idle",
        "reader MB",
        "worker MB",
    )
    most = max(one.reader_peak_mb for one in encoded)
    share = spread(turns.spin_shares)
    lines = [
        table(header, rows),
        "",
        f"Decoded inline: {turns.per_cpu_s(INLINE, encoded[0].tiles):.0f} tiles/CPU-s.",
        f"Reader's peak {most:.0f} MB, target {MOST_MB:.0f}, {_verdict(most <= MOST_MB)}.",
        "Idle is the share of the tile stage in which the tile encoder waited.",
        f"A bare loop got {share.median:.2f} of a core.",
    ]
    if model is None:
        rounds = f"{ratio.least:.2f}–{ratio.most:.2f}"
        verdict = _verdict(ratio.median >= LEAST_RATIO)
        lines.insert(2, f"Worker ÷ inline: {ratio.median:.3f} ({rounds}), target {LEAST_RATIO:.2f}, {verdict}.")
    return "\n".join(lines)


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _row(one: Encoded) -> tuple[str, ...]:
    stages = [f"{one.stages_s[stage]:.2f}" for stage in ("tile", "encode_tiles", "encode_slide")]
    return (
        str(one.tiles),
        *stages,
        f"{one.tiles / one.tile_stage.wall_s:.0f}",
        f"{one.tiles / one.tile_stage.cpu_s:.0f}",
        f"{one.idle_s / (one.idle_s + one.busy_s):.2f}",
        f"{one.reader_peak_mb:.0f}",
        f"{one.worker_peak_mb:.0f}",
    )


if __name__ == "__main__":
    main()
