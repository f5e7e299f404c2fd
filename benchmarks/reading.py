"""Tiles per CPU second of every way to read them, as a ratio to decoding the same JPEG tiles from memory.

    python -m benchmarks.reading
    python -m benchmarks.reading --slide CMU-1-Small-Region.svs --long

One process, one thread, tissue only, page cache warm, methods in turns. No time counts of a reader whose pixels are
not OpenSlide's.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from benchmarks.peer_readers import PEERS, installed_peers, openslide_pil
from benchmarks.read_methods import (
    FAST,
    FAST_DCT,
    LIMIT,
    LIMIT_HALVED,
    OPENSLIDE,
    OPENSLIDE_REDUCED,
    RAW,
    Corners,
    Distance,
    Method,
    ReadTile,
    distance,
    measured_methods,
    region_tiles,
)
from benchmarks.synthetic_slides import FOLDER, synthetic_slide
from benchmarks.take_turns import Cost, Turns, cost_of, spread, take_turns
from benchmarks.write_results import table, turns_record, write_result
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.slide_readers.area_mean import IS_COMPILED
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.types import TilePlan
from model_store.contracts.tile_encoder import TilingSpec

PACKAGES = (
    *("simplejpeg", "numpy", "opencv-python-headless", "openslide-bin", "openslide-python", "pillow", "imagecodecs"),
    *("tifffile", "cucim-cu12", "pyvips", "pyvips-binary", "tiffslide"),
)
# Tiles compared with OpenSlide's before anything is measured.
COMPARED_TILES = 32


class NothingToMeasure(Exception):
    """Why a slide cannot be measured on, for the person at the terminal."""


class WrongPixels(NothingToMeasure):
    """One of our own readers does not give OpenSlide's pixels."""


@dataclass(frozen=True)
class Case:
    """A slide and a resolution; `targets` are least ratios of CPU speed: (method, base) → ratio."""

    name: str
    title: str
    slide: str
    target_mpp: float
    tiles: int
    targets: Mapping[tuple[str, str], float]
    is_long: bool = False


_NATIVE = {(FAST, LIMIT): 0.90, (RAW, LIMIT): 0.18, (FAST, OPENSLIDE): 5.0}
_HALF_RGB = {(FAST, LIMIT): 0.75, (FAST_DCT, LIMIT): 1.05, (FAST_DCT, LIMIT_HALVED): 0.90, (RAW, LIMIT): 0.15}
# Five times OpenSlide is for 4:2:0: where decoding itself costs more, painting is a smaller part of the whole.
_HALF = {**_HALF_RGB, (FAST, OPENSLIDE): 5.0, (FAST, OPENSLIDE_REDUCED): 5.0}
_OTHER_GRID = {(FAST, LIMIT): 0.70}
CASES = (
    Case("native", "0.25 µm/px as scanned (s420, 4:2:0)", "s420", 0.25, 400, _NATIVE),
    Case("half", "0.25 → 0.5 µm/px, no such level (s420, 4:2:0)", "s420", 0.5, 120, _HALF),
    Case("half_rgb", "0.25 → 0.5 µm/px, no such level (srgb444, RGB 4:4:4)", "srgb444", 0.5, 80, _HALF_RGB),
    Case("other_grid", "256 px tiles over JPEG tiles of 240 px (t240, RGB 4:4:4)", "t240", 0.5, 300, _OTHER_GRID),
    Case("level", "a level at 0.5 µm/px (pow2, 4:2:0)", "pow2", 0.5, 400, _NATIVE, is_long=True),
)


@dataclass(frozen=True)
class Measured:
    """A case, what each method cost for `tiles` tiles a round, and how far its pixels are from OpenSlide's."""

    case: Case
    tiles: int
    turns: Turns
    distances: Mapping[str, Distance]
    left_out: Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table for each case, write the JSON; exit code 1 when our own pixels are wrong."""
    options = _parser().parse_args(arguments)
    cv2.setNumThreads(1)
    cases = [case for case in CASES if options.long or not case.is_long]
    slides = [(case, synthetic_slide(case.slide, options.folder)) for case in cases]
    if options.slide is None:
        print("No slide is given with --slide: synthetic ones only.", file=sys.stderr)
    else:
        given = Case("given", "a given slide at 0.5 µm/px", "given", 0.5, 2_000, _OTHER_GRID)
        slides.append((given, options.slide))
    try:
        found = [measure(case, path, options) for case, path in slides]
    except NothingToMeasure as error:
        raise SystemExit(str(error)) from None
    print("\n\n".join(f"{one.case.title}\n\n{report(one)}" for one in found))
    means = "compiled" if IS_COMPILED else "OpenCV's"
    path = write_result("reading", {"means_2x2": means, "cases": [record(one) for one in found]}, PACKAGES)
    print(f"\nMeans over 2 × 2 pixels: {means}.\n{path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="a real slide to measure on too, such as CMU-1-Small-Region.svs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="four times the tiles, and one more slide (450 MB)")
    return parser


def measure(case: Case, path: Path, options: argparse.Namespace) -> Measured:
    """One case; raises NothingToMeasure."""
    limits = ReaderLimits()
    tiling = TilingSpec(
        target_mpp=case.target_mpp, tile_px=256, min_tissue_fraction=0.9, order="raster", tissue_rule="otsu-guarded-v2"
    )
    with ReaderProcess(path, limits) as process:
        plan = process.plan(tiling, None)
    portions = split(plan, options.rounds, case.tiles * (4 if options.long else 1))
    _warm(path)
    methods = measured_methods(path, plan, OpenSlideReader(path, limits).levels)
    step = max(1, sum(map(len, portions)) // COMPARED_TILES)
    sample = [corner for portion in portions for corner in portion[::step]]
    distances = compare(methods, region_tiles(openslide_pil(path), plan), sample)
    kept, left_out = gate(methods, distances)
    left_out |= {name: "not installed" for name in PEERS if name not in installed_peers()}
    turns = take_turns({method.name: _turn(method, portions) for method in kept}, options.rounds)
    return Measured(case, len(portions[0]), turns, distances, left_out)


def split(plan: TilePlan, rounds: int, tiles: int) -> list[Corners]:
    """A run of as many tiles for each round, in the plan's order, evenly spaced over the slide, none in two rounds.

    A slide that has too few gives all of them to every round. Raises NothingToMeasure when it has none.
    """
    corners = [(int(x), int(y)) for x, y in plan.coords]
    if not corners:
        raise NothingToMeasure("The slide has no tile that is tissue all over.")
    share = len(corners) // rounds
    if share < tiles:
        return [corners[:tiles]] * rounds
    return [corners[number * share :][:tiles] for number in range(rounds)]


def compare(methods: Sequence[Method], reference: ReadTile, sample: Corners) -> dict[str, Distance]:
    """How far each method's pixels are from the reference's."""
    return {method.name: distance(method.open(), reference, sample) for method in methods}


def gate(methods: Sequence[Method], distances: Mapping[str, Distance]) -> tuple[list[Method], dict[str, str]]:
    """The methods whose time may count, and why the others' may not.

    Raises WrongPixels when one that is left out is our own or the limit.
    """
    wrong = [method.name for method in methods if method.is_exact and distances[method.name].most > 0]
    if ours := [name for name in wrong if name in (LIMIT, FAST, RAW)]:
        raise WrongPixels(f"{ours[0]} differs from OpenSlide by up to {distances[ours[0]].most} grey levels.")
    reasons = {name: f"differs from OpenSlide by up to {distances[name].most} grey levels" for name in wrong}
    return [method for method in methods if method.name not in wrong], reasons


def _turn(method: Method, portions: Sequence[Corners]) -> Callable[[int], Cost]:
    return lambda number: cost_of(method.prepare(portions[number]))


def _warm(path: Path) -> None:
    """Everything into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(2**24):
            pass


def report(found: Measured) -> str:
    """The case's table, its targets, what was left out, and how busy the machine was."""
    rows = [_row(found, name) for name in found.turns.costs]
    lines = [table(("method", "tiles/CPU-s", "ratio to LIMIT", "rounds", "pixels"), rows), ""]
    lines += [_target(found, *pair, least) for pair, least in found.case.targets.items()]
    lines += [f"{name}: left out, {why}." for name, why in found.left_out.items()]
    share = spread(found.turns.spin_shares)
    lines.append(f"A bare loop got {share.median:.2f} of a core ({share.least:.2f}–{share.most:.2f}).")
    return "\n".join(lines)


def _row(found: Measured, name: str) -> tuple[str, ...]:
    ratio, apart = found.turns.cpu_ratio(name, LIMIT), found.distances[name]
    pixels = "equal" if apart.most == 0 else f"max {apart.most}, mean {apart.mean:.2f}"
    rate = found.turns.per_cpu_s(name, found.tiles)
    return name, f"{rate:.0f}", f"{ratio.median:.2f}", f"{ratio.least:.2f}–{ratio.most:.2f}", pixels


def _target(found: Measured, method: str, base: str, least: float) -> str:
    ratio = found.turns.cpu_ratio(method, base).median
    return f"{method} ÷ {base}: {ratio:.3f}, target {least:.2f}, {'met' if ratio >= least else 'MISSED'}."


def record(found: Measured) -> dict[str, object]:
    """A case for the JSON."""
    targets = [
        {"method": method, "base": base, "ratio": round(found.turns.cpu_ratio(method, base).median, 3), "target": least}
        for (method, base), least in found.case.targets.items()
    ]
    return {
        "case": found.case.name,
        "title": found.case.title,
        "tiles_per_round": found.tiles,
        "tiles_per_cpu_s": {name: round(found.turns.per_cpu_s(name, found.tiles), 1) for name in found.turns.costs},
        "ratio_to_limit": {name: asdict(found.turns.cpu_ratio(name, LIMIT)) for name in found.turns.costs},
        "distance_from_openslide": {name: asdict(apart) for name, apart in found.distances.items()},
        "targets": targets,
        "left_out": dict(found.left_out),
        **turns_record(found.turns),
    }


if __name__ == "__main__":
    main()
