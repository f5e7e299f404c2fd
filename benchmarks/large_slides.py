"""What very large slides cost: slides of 1 to 100 GB decoded through a whole worker, stage by stage.

    python -m benchmarks.large_slides
    python -m benchmarks.large_slides --sides 16384 57344

Each slide is tissue throughout and encoded in a process of its own, so that peaks of memory are its own. The tile
encoder takes no time (watched_worker.py): what it takes is the same for every tile, and is measured elsewhere. Printed
are CPU time and memory a tile, because other work on the machine does not change those, and the exponent with which the
CPU time of the whole grows with the number of tiles: 1 is no worse than more of the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.repeated_slides import SQUARE_PX, decoded_gb, write_repeated_slide
from benchmarks.synthetic_slides import FOLDER
from benchmarks.take_turns import Cost
from benchmarks.watched_worker import Encoded, Watch, instant_encoders
from benchmarks.write_results import table, write_result
from encoders.caller import Caller
from encoders.pipeline import encode_slide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import SlideFile

# 0.8, 11, 31 and 102 GB decoded: 1,000 to 130,000 tiles of 256 px at 0.5 µm/px.
SIDES_PX: Final = tuple(SQUARE_PX * squares for squares in (4, 15, 25, 45))
MOST_MB: Final = 2_000.0
MOST_KB_A_TILE: Final = 6.0
MOST_GROWTH: Final = 1.10
PACKAGES: Final = ("simplejpeg", "numpy", "openslide-bin", "torch")


@dataclass(frozen=True)
class Measured:
    """One slide."""

    side_px: int
    file_mb: float
    wall_s: float
    cpu_s: float
    encoded: Encoded

    @property
    def peak_mb(self) -> float:
        """Of reader and worker, each at its own largest."""
        return self.encoded.reader_peak_mb + self.encoded.worker_peak_mb

    @property
    def allowed_mb(self) -> float:
        """A fixed part, and some for each tile."""
        return MOST_MB + MOST_KB_A_TILE * self.encoded.tiles / 1_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    if options.only is not None:
        print(json.dumps(asdict(measure(options.only, options.folder))))
        return
    measured = [_measured_apart(side, options.folder) for side in options.sides]
    print(report(measured))
    content = {
        "targets": {"mb": MOST_MB, "kb_a_tile": MOST_KB_A_TILE, "time_a_tile_growth": MOST_GROWTH},
        "exponent": exponent(measured),
        "slides": [asdict(one) for one in measured],
    }
    print(f"\n{write_result('large_slides', content, PACKAGES)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES_PX), help=f"px, multiples of {SQUARE_PX}")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    return parser


def _measured_apart(side_px: int, folder: Path) -> Measured:
    path = slide_path(side_px, folder)
    if not path.exists():
        write_repeated_slide(path, side_px)
    command = [sys.executable, "-m", "benchmarks.large_slides", "--only", str(side_px), "--folder", str(folder)]
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    told = json.loads(ended.stdout)
    encoded = told.pop("encoded")
    stage = encoded.pop("tile_stage")
    return Measured(**told, encoded=Encoded(**encoded, tile_stage=Cost(**stage)))


def measure(side_px: int, folder: Path) -> Measured:
    """Encodes the slide once, in this process."""
    path = slide_path(side_px, folder)
    with tempfile.TemporaryDirectory() as scratch, instant_encoders(Path(scratch)) as encoders:
        [given] = encoders.inputs.values()
        watch = Watch(given.batcher)
        began, cpu = time.perf_counter(), os.times()
        encode_slide(
            SlideFile("0" * 64, path),
            encoders,
            mpp_override=None,
            limits=ReaderLimits(),
            features_path=Path(scratch) / "features.h5",
            caller=Caller(on_progress=watch.on_progress),
        )
        wall, ended = time.perf_counter() - began, os.times()
    spent = sum(ended[:4]) - sum(cpu[:4])  # children that have ended are counted too: the reader has
    return Measured(side_px, path.stat().st_size / 1e6, wall, spent, watch.encoded())


def slide_path(side_px: int, folder: Path) -> Path:
    """Where the slide of this size is kept."""
    return folder / f"repeated-{side_px}.svs"


def exponent(measured: Sequence[Measured]) -> float | None:
    """Of CPU time over the number of tiles, by least squares of the logarithms; None for one slide."""
    if len(measured) < 2:
        return None
    tiles = np.log([one.encoded.tiles for one in measured])
    return float(np.polyfit(tiles, np.log([one.cpu_s for one in measured]), 1)[0])


def report(measured: Sequence[Measured]) -> str:
    """The table, and whether the targets are met."""
    header = (
        "GB decoded", "file MB", "tiles", "wall s", "CPU s", "plan s", "tiles s", "slide s", "CPU ms a tile",
        "kB read a tile", "reader MB", "worker MB", "allowed MB",
    )  # fmt: skip
    lines = [table(header, map(_row, measured)), ""]
    grown = _per_tile(measured[-1]) / _per_tile(measured[0])
    found = exponent(measured)
    if found is not None:
        lines.append(f"CPU time grows as tiles to the power {found:.2f}.")
        verdict = "met" if grown <= MOST_GROWTH else "MISSED"
        lines.append(f"CPU time a tile, largest slide ÷ smallest: {grown:.2f}, target {MOST_GROWTH:.2f}, {verdict}.")
    over = [one for one in measured if one.peak_mb > one.allowed_mb]
    lines.append(f"Memory within {MOST_MB:.0f} MB and {MOST_KB_A_TILE:.0f} kB a tile: {'MISSED' if over else 'met'}.")
    return "\n".join(lines)


def _per_tile(one: Measured) -> float:
    return one.encoded.tile_stage.cpu_s / one.encoded.tiles


def _row(one: Measured) -> tuple[str, ...]:
    seen = one.encoded
    stages = [f"{seen.stages_s[stage]:.1f}" for stage in ("tile", "encode_tiles", "encode_slide")]
    return (
        f"{decoded_gb(one.side_px):.1f}",
        f"{one.file_mb:.1f}",
        f"{seen.tiles:,}",
        f"{one.wall_s:.1f}",
        f"{one.cpu_s:.1f}",
        *stages,
        f"{1_000 * _per_tile(one):.3f}",
        f"{1_000 * seen.reader_read_mb / seen.tiles:.0f}",
        f"{seen.reader_peak_mb:,.0f}",
        f"{seen.worker_peak_mb:,.0f}",
        f"{one.allowed_mb:,.0f}",
    )


if __name__ == "__main__":
    main()
