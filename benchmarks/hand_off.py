"""The cost of reading tiles in a separate process: CPU seconds of all processes, beside decoding inline.

    python -m benchmarks.hand_off

The child decodes into shared memory and the parent copies every batch out of it, as a worker does. Then a slide of
60,000 × 50,000 px is read whole, for the largest memory of both.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.process_counters import cpu_s, peak_mb
from benchmarks.synthetic_slides import FOLDER, synthetic_slide
from benchmarks.take_turns import Cost, Turns, cost_of, spread, take_turns
from benchmarks.write_results import table, turns_record, write_result
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.decode_buffer import decode_buffer
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.types import TilePlan
from model_store.contracts.tile_encoder import TilingSpec

SLIDE = "s420"
INLINE, PROCESS = "decoded inline", "reader process"
LEAST_RATIO = 0.85
MOST_MB = 1_000.0
PACKAGES = ("simplejpeg", "numpy", "opencv-python-headless", "openslide-bin")


@dataclass(frozen=True)
class HandOff:
    """One resolution: costs of `tiles` tiles a round, and the peaks after reading all `all_tiles` of the slide."""

    target_mpp: float
    tiles: int
    all_tiles: int
    turns: Turns
    child_peak_mb: float
    parent_peak_mb: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    cv2.setNumThreads(1)
    path = synthetic_slide(SLIDE, options.folder)
    limits = ReaderLimits()
    found = [
        measure(path, limits, target_mpp, None if options.long else tiles, options.batch_tiles, options.rounds)
        for target_mpp, tiles in ((0.5, 1_500), (0.25, 6_000))
    ]
    print(report(found, limits))
    content = {
        "slide": SLIDE,
        "batch_tiles": options.batch_tiles,
        "decode_threads": limits.decode_threads,
        "targets": {"cpu_ratio": LEAST_RATIO, "child_peak_mb": MOST_MB},
        "resolutions": [_record(one) for one in found],
    }
    print(f"\n{write_result('hand_off', content, PACKAGES)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="all tiles of the slide in every round")
    parser.add_argument("--batch-tiles", type=int, default=64)
    return parser


def measure(
    path: Path, limits: ReaderLimits, target_mpp: float, tiles: int | None, batch_tiles: int, rounds: int
) -> HandOff:
    """The last `tiles` of the plan (all, if None), the same in every round."""
    tiling = TilingSpec(
        target_mpp=target_mpp, tile_px=256, min_tissue_fraction=0.1, order="raster", tissue_rule="otsu-guarded-v2"
    )
    reader = open_reader(path, limits).reader
    with ReaderProcess(path, limits) as process:
        plan = process.plan(tiling, None)
        first = max(0, len(plan.coords) - (tiles or len(plan.coords)))
        work = {
            INLINE: _decoded_inline(reader, plan, first, batch_tiles),
            PROCESS: _handed_over(process, plan, first, batch_tiles),
        }
        turns = take_turns(work, rounds)
        _take(process, plan, 0, batch_tiles)
        return HandOff(target_mpp, len(plan.coords) - first, len(plan.coords), turns, peak_mb(process.pid), peak_mb())


def _decoded_inline(reader: SlideReader, plan: TilePlan, first: int, batch_tiles: int) -> Callable[[int], Cost]:
    batch = decode_buffer(batch_tiles, plan.tile_px, plan.tile_px, 3)

    def decode() -> None:
        for index, (x, y) in enumerate(plan.coords[first:]):
            read_tile(reader, plan, int(x), int(y), batch[index % batch_tiles])

    return lambda _: cost_of(decode)


def _handed_over(process: ReaderProcess, plan: TilePlan, first: int, batch_tiles: int) -> Callable[[int], Cost]:
    pid = process.pid
    assert pid is not None, "the child lives as long as the context"

    def turn(_: int) -> Cost:
        wall, cpu = time.perf_counter(), time.process_time() + cpu_s(pid)
        _take(process, plan, first, batch_tiles)
        return Cost(time.process_time() + cpu_s(pid) - cpu, time.perf_counter() - wall)

    return turn


def _take(process: ReaderProcess, plan: TilePlan, first: int, batch_tiles: int) -> None:
    staging = np.empty((batch_tiles, plan.tile_px, plan.tile_px, 3), dtype=np.uint8)
    for batch in process.tiles(batch_tiles, first):
        staging[: len(batch.pixels)] = batch.pixels


def report(found: Sequence[HandOff], limits: ReaderLimits) -> str:
    """A table, and whether the targets are met."""
    header = ("µm/px", "tiles", "way", "tiles/CPU-s", "tiles/s", "ratio of CPU", "rounds", "reader MB", "parent MB")
    rows = [_row(one, name) for one in found for name in (INLINE, PROCESS)]
    least = min(one.turns.cpu_ratio(PROCESS, INLINE).median for one in found)
    most = max(one.child_peak_mb for one in found)
    share = spread([share for one in found for share in one.turns.spin_shares])
    return "\n".join(
        [
            table(header, rows),
            "",
            f"Ratio {least:.3f}, target {LEAST_RATIO:.2f}, {'met' if least >= LEAST_RATIO else 'MISSED'}.",
            f"Reader's peak {most:.0f} MB, target {MOST_MB:.0f}, {'met' if most <= MOST_MB else 'MISSED'}.",
            f"{limits.decode_threads} decoding threads. A bare loop got {share.median:.2f} of a core.",
        ]
    )


def _row(one: HandOff, name: str) -> tuple[str, ...]:
    ratio, costs = one.turns.cpu_ratio(name, INLINE), one.turns.costs[name]
    memory = (f"{one.child_peak_mb:.0f}", f"{one.parent_peak_mb:.0f}") if name == PROCESS else ("", "")
    return (
        f"{one.target_mpp:g}",
        str(one.tiles),
        name,
        f"{one.turns.per_cpu_s(name, one.tiles):.0f}",
        f"{spread([one.tiles / cost.wall_s for cost in costs]).median:.0f}",
        f"{ratio.median:.2f}",
        f"{ratio.least:.2f}–{ratio.most:.2f}",
        *memory,
    )


def _record(one: HandOff) -> dict[str, object]:
    ratio = one.turns.cpu_ratio(PROCESS, INLINE)
    return {
        "target_mpp": one.target_mpp,
        "tiles_per_round": one.tiles,
        "tiles_of_the_slide": one.all_tiles,
        "cpu_ratio": {"median": ratio.median, "least": ratio.least, "most": ratio.most},
        "child_peak_mb": round(one.child_peak_mb, 1),
        "parent_peak_mb": round(one.parent_peak_mb, 1),
        **turns_record(one.turns),
    }


if __name__ == "__main__":
    main()
