"""Latency of tiles for a viewer: a reader that starts, the first view of a slide, then warm tiles by kind of level.

    python -m benchmarks.view_tiles
    python -m benchmarks.view_tiles --slide CMU-1-Small-Region.svs --slide jpeg2000.svs

Wall-clock times in this process, from a request to a checked JPEG, one request at a time, page cache warm. What HTTP,
key and record add is not in them. Beside other work they are upper bounds.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.process_counters import peak_mb
from benchmarks.synthetic_slides import FOLDER, synthetic_slide
from benchmarks.write_results import table, write_result
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.pictures.deep_zoom import DeepZoom

SLIDE = "srgb444"
# What fills a window of 1600 × 900 px.
_VIEW_PX = 1_600
PACKAGES = ("simplejpeg", "numpy", "opencv-python-headless", "openslide-bin")


@dataclass(frozen=True)
class Latency:
    """Of tiles of one kind, in ms."""

    tiles: int
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Viewed:
    """One slide. `open_ms` until the reader answers, `first_view_ms` from there until a window is filled."""

    slide: str
    width: int
    height: int
    downsamples: list[float]
    reader: str
    open_ms: float
    first_view_ms: float
    first_view_tiles: int
    warm: dict[str, Latency]
    reader_peak_mb: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    paths = {SLIDE: synthetic_slide(SLIDE, options.folder)} | {path.name: path for path in options.slide}
    found = [measure(name, path, options.tiles) for name, path in paths.items()]
    print(report(found))
    print(f"\n{write_result('view_tiles', {'slides': [asdict(one) for one in found]}, PACKAGES)}")


def measure(name: str, path: Path, tiles: int) -> Viewed:
    """A reader's life with one slide."""
    begun = time.perf_counter()
    with ReaderProcess(path, ReaderLimits()) as reader:
        opened = time.perf_counter()
        facts = reader.facts()
        pyramid = DeepZoom(facts.width, facts.height)
        first = _first_view(pyramid)
        for address in first:
            reader.view_tile(*address)
        filled = time.perf_counter()
        warm = {
            kind: _latency(reader, _random_tiles(pyramid, levels, tiles)) for kind, levels in _kinds(pyramid).items()
        }
        assert reader.pid is not None
        return Viewed(
            name,
            facts.width,
            facts.height,
            [round(level.downsample, 3) for level in reader.levels()],
            reader.kind,
            _ms(opened - begun),
            _ms(filled - opened),
            len(first),
            warm,
            peak_mb(reader.pid),
        )


def report(found: Sequence[Viewed]) -> str:
    """Two tables."""
    starts = [
        [
            one.slide,
            f"{one.width} × {one.height}",
            ", ".join(f"{it:g}" for it in one.downsamples),
            one.reader,
            f"{one.open_ms:.0f}",
            f"{one.first_view_ms:.0f} ({one.first_view_tiles})",
            f"{one.reader_peak_mb:.0f}",
        ]
        for one in found
    ]
    warm = [
        [one.slide, kind, str(it.tiles), f"{it.median_ms:.1f}", f"{it.p95_ms:.1f}"]
        for one in found
        for kind, it in one.warm.items()
    ]
    header = ["slide", "size", "levels at", "reader", "open, ms", "first view, ms (tiles)", "peak, MB"]
    return table(header, starts) + "\n\n" + table(["slide", "tiles", "number", "median, ms", "p95, ms"], warm)


def _first_view(pyramid: DeepZoom) -> list[tuple[int, int, int]]:
    """The tiles of the coarsest level that fills the window."""
    level = next((it for it in range(pyramid.level_count) if max(pyramid.size(it)) >= _VIEW_PX), None)
    level = pyramid.level_count - 1 if level is None else level
    columns, rows = pyramid.grid(level)
    return [(level, column, row) for row in range(rows) for column in range(columns)]


def _kinds(pyramid: DeepZoom) -> dict[str, list[int]]:
    last = pyramid.level_count - 1
    coarse = [it for it in range(pyramid.level_count) if pyramid.scale(it) >= 32]
    between = [it for it in range(last) if it not in coarse]
    return {"full size": [last], "1/2 to 1/16": between, "1/32 and less": coarse}


def _random_tiles(pyramid: DeepZoom, levels: Sequence[int], number: int) -> Iterator[tuple[int, int, int]]:
    """The same ones in every run."""
    rng = np.random.default_rng(len(levels))
    for level in rng.choice(levels, number).tolist():
        column, row = rng.integers(pyramid.grid(level)).tolist()
        yield level, column, row


def _latency(reader: ReaderProcess, addresses: Iterator[tuple[int, int, int]]) -> Latency:
    taken = []
    for address in addresses:
        begun = time.perf_counter()
        reader.view_tile(*address)
        taken.append(_ms(time.perf_counter() - begun))
    return Latency(len(taken), round(float(np.median(taken)), 2), round(float(np.percentile(taken, 95)), 2))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--slide", type=Path, action="append", default=[], help="a real slide too; may be repeated")
    parser.add_argument("--tiles", type=int, default=200, help="of each kind of level (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
