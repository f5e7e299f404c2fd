"""A worker from slide to embedding: reader process, batches, tile encoder, slide encoder, as they run in production.

    python -m benchmarks.worker
    python -m benchmarks.worker --model wsi-llava --models-dir data/models --device cuda

Without --model the tile encoder computes next to nothing, so that what feeds it is what is measured: CPU seconds of all
processes for the tiles of a slide, beside decoding the same tiles inline. With --model it is the real one.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2

from benchmarks.synthetic_slides import FOLDER, synthetic_slide
from benchmarks.take_turns import Cost, Turns, cost_of, spread, take_turns
from benchmarks.watched_worker import Encoded, Watch, instant_encoders
from benchmarks.write_results import table, turns_record, write_result
from encoders.caller import Caller
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.slide_stages.tile_input import TileInput
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.decode_buffer import decode_buffer
from encoders.types import SlideFile
from model_store.installed import open_model

SLIDE = "s420"
INLINE, WORKER = "decoded inline", "worker"
LEAST_RATIO = 0.85
MOST_MB = 1_000.0
PACKAGES = ("simplejpeg", "numpy", "opencv-python-headless", "openslide-bin", "torch", "timm")


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
    return instant_encoders(folder, options.device)


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
