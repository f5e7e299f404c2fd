import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import reading
from benchmarks.peer_readers import openslide_pil
from benchmarks.read_methods import (
    FAST,
    FAST_DCT,
    LIMIT,
    OPENSLIDE,
    RAW,
    Corners,
    Distance,
    Method,
    distance,
    measured_methods,
    region_tiles,
)
from benchmarks.read_methods import reading as reading_method
from benchmarks.reading import CASES, Measured, WrongPixels, compare, gate, record, report, split
from benchmarks.take_turns import Cost, Turns
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.plan_tiles import plan_at_target
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.types import TilePlan
from model_store.contracts.tile_encoder import TilingSpec

TILING = TilingSpec(target_mpp=0.5, tile_px=256, min_tissue_fraction=0.9, order="raster", tissue_rule="otsu-guarded-v2")


def grey(value: int) -> Callable[[int, int], np.ndarray]:
    return lambda x, y: np.full((4, 4, 3), value, dtype=np.uint8)


def method(name: str, value: int, *, is_exact: bool = True) -> Method:
    return Method(name, lambda: grey(value), lambda corners: lambda: None, is_exact)


def plan_of(path: Path, target_mpp: float) -> TilePlan:
    tiling = TilingSpec(
        target_mpp=target_mpp, tile_px=256, min_tissue_fraction=0.9, order="raster", tissue_rule="otsu-guarded-v2"
    )
    with ReaderProcess(path, ReaderLimits()) as process:
        return process.plan(tiling, None)


def test_the_time_of_a_reader_with_wrong_pixels_does_not_count() -> None:
    methods = [method(LIMIT, 7), method(FAST, 7), method("peer", 9), method(FAST_DCT, 8, is_exact=False)]

    distances = compare(methods, grey(7), [(0, 0), (4, 0)])
    kept, left_out = gate(methods, distances)

    assert [one.name for one in kept] == [LIMIT, FAST, FAST_DCT]
    assert left_out == {"peer": "differs from OpenSlide by up to 2 grey levels"}


@pytest.mark.parametrize("name", [LIMIT, FAST, RAW])
def test_wrong_pixels_of_our_own_end_the_benchmark(name: str) -> None:
    methods = [method(name, 7), method(OPENSLIDE, 6)]

    with pytest.raises(WrongPixels, match="differs from OpenSlide by up to 1 grey levels"):
        gate(methods, compare(methods, grey(6), [(0, 0)]))


def test_one_wrong_pixel_in_one_tile_is_a_difference() -> None:
    def one_off(x: int, y: int) -> np.ndarray:
        pixels = grey(100)(x, y)
        pixels[2, 3, 1] += (x, y) == (8, 0)
        return pixels

    found = distance(one_off, grey(100), [(0, 0), (4, 0), (8, 0)])

    assert found.most == 1
    assert found.mean == pytest.approx(1 / (4 * 4 * 3) / 3)


def test_rounds_get_different_runs_of_neighbouring_tiles() -> None:
    y, x = np.divmod(np.arange(100), 10)
    plan = plan_at_target(TILING, np.stack([x, y], axis=1) * 256)

    portions = split(plan, 3, 20)

    assert [len(portion) for portion in portions] == [20, 20, 20]
    assert len({corner for portion in portions for corner in portion}) == 60
    assert portions[1][:2] == [(3 * 256, 3 * 256), (4 * 256, 3 * 256)]


def test_a_slide_with_few_tiles_gives_them_all_to_every_round() -> None:
    plan = plan_at_target(TILING, np.array([[0, 0], [256, 0], [512, 0]]))

    assert split(plan, 2, 20) == [[(0, 0), (256, 0), (512, 0)]] * 2


def test_each_round_opens_the_slide_anew_so_that_no_cache_helps() -> None:
    opened = []

    def open_slide() -> Callable[[int, int], np.ndarray]:
        opened.append(True)
        return grey(7)

    one = reading_method("peer", open_slide)

    for _ in range(2):
        one.prepare([(0, 0)])()

    assert len(opened) == 2


@pytest.mark.parametrize("target_mpp", [0.25, 0.5])
def test_every_exact_method_gives_openslides_pixels_on_a_real_file(small_s420: Path, target_mpp: float) -> None:
    plan = plan_of(small_s420, target_mpp)
    corners: Corners = [(int(x), int(y)) for x, y in plan.coords[:3]]

    methods = measured_methods(small_s420, plan, OpenSlideReader(small_s420, ReaderLimits()).levels)
    distances = compare(methods, region_tiles(openslide_pil(small_s420), plan), corners)

    assert {LIMIT, FAST, RAW, OPENSLIDE, "tifffile"} <= distances.keys()
    assert {name for name, apart in distances.items() if apart.most == 0} >= {LIMIT, FAST, RAW, OPENSLIDE, "tifffile"}
    assert (FAST_DCT in distances) == (target_mpp == 0.5)
    for one in methods:
        one.prepare(corners)()


def test_the_report_says_what_was_met_missed_and_left_out() -> None:
    costs = {LIMIT: [Cost(1.0, 1.0)], FAST: [Cost(1.25, 1.3)], RAW: [Cost(10.0, 9.9)], OPENSLIDE: [Cost(12.5, 12.0)]}
    same = {name: Distance(0, 0.0) for name in costs}
    case = replace(CASES[0], targets={(FAST, LIMIT): 0.75, (RAW, LIMIT): 0.15, (FAST, OPENSLIDE): 5.0})
    found = Measured(case, 100, Turns(costs, [0.5, 0.7, 0.6]), same, {"cucim": "not installed"})

    lines = report(found).splitlines()

    assert f"| {FAST} | 80 | 0.80 | 0.80–0.80 | equal |" in lines
    assert f"{FAST} ÷ {LIMIT}: 0.800, target 0.75, met." in lines
    assert f"{RAW} ÷ {LIMIT}: 0.100, target 0.15, MISSED." in lines
    assert f"{FAST} ÷ {OPENSLIDE}: 10.000, target 5.00, met." in lines
    assert "cucim: left out, not installed." in lines
    assert "A bare loop got 0.60 of a core (0.50–0.70)." in lines
    assert json.loads(json.dumps(record(found)))["tiles_per_cpu_s"][FAST] == 80.0


def test_a_slide_is_measured_from_plan_to_table(small_s420: Path) -> None:
    options = reading._parser().parse_args(["--rounds", "2"])

    found = reading.measure(replace(CASES[1], tiles=1), small_s420, options)

    assert set(found.turns.costs) >= {LIMIT, FAST, FAST_DCT, RAW, OPENSLIDE}
    assert found.tiles == 1
    assert all(len(costs) == 2 for costs in found.turns.costs.values())
