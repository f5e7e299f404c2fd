"""Cells are those that the public code finds, to the last bit, whatever lies in the picture."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from drawn_cells import DrawnMaps, Ellipse, draw_maps, drawn_cases
from hwsi_vectors import cases_of, needs_vectors, recipe, vectors_of
from numpy.typing import NDArray
from safetensors.numpy import load_file

from encoders.errors import EncoderOverflowed
from encoders.hierarchical.find_cells import Cells, find_cells

GOLDEN = load_file(Path(__file__).parent / "golden" / "cells.safetensors")
CASES = drawn_cases()


def found_in(maps: DrawnMaps) -> Cells:
    return find_cells(maps.nucleus, maps.kind, maps.distance)


def as_arrays(cells: Cells) -> dict[str, NDArray[np.generic]]:
    fields = {field.name: getattr(cells, field.name) for field in dataclasses.fields(cells)}
    contours = fields.pop("contours")
    lengths = np.array([len(contour) for contour in contours], np.int32)
    return {**fields, "contour_lengths": lengths, "contours": np.concatenate([np.zeros((0, 2), np.int32), *contours])}


@pytest.mark.parametrize("name", CASES)
def test_cells_are_those_of_the_public_code(name: str) -> None:
    found = as_arrays(found_in(CASES[name]))

    for field, array in found.items():
        np.testing.assert_array_equal(array, GOLDEN[f"{name}.{field}"], err_msg=field)


@needs_vectors
@pytest.mark.parametrize("name", cases_of("find_cells"))
def test_cells_are_those_of_the_reference_vectors(name: str) -> None:
    kind, distance = recipe().drawn_maps(cases_of("find_cells")[name])
    wanted = {field: vectors_of("find_cells")[f"{name}.{there}"].numpy() for field, there in (
        ("instances", "instances"), ("numbers", "numbers"), ("centroids", "centroid_xy"), ("boxes", "box_y0x0y1x1"),
        ("kinds", "kind"), ("kind_shares", "kind_share"), ("contour_lengths", "contour_length"),
        ("contours", "contours_xy"),
    )}  # fmt: skip

    found = as_arrays(find_cells((kind > 0).astype(np.int64), kind, distance))

    for field, array in found.items():
        np.testing.assert_array_equal(array, wanted[field], err_msg=field)


@pytest.mark.parametrize("name", ["none", "white", "flat"])
def test_no_cells_are_empty_arrays_of_the_same_form(name: str) -> None:
    cells = found_in(CASES[name])

    assert not cells.instances.any()
    shapes = {field: array.shape for field, array in as_arrays(cells).items() if field != "instances"}
    assert shapes == {
        "numbers": (0,), "centroids": (0, 2), "boxes": (0, 4), "kinds": (0,), "kind_shares": (0,),
        "contour_lengths": (0,), "contours": (0, 2),
    }  # fmt: skip


def test_a_cell_is_described_in_pixels_of_its_picture() -> None:
    cells = found_in(draw_maps(64, 48, [Ellipse(30, 20, 9, 7, 4)]))

    [x, y] = cells.centroids[0]
    assert (round(x), round(y)) == (30, 20)
    assert cells.boxes.tolist() == [[13, 21, 28, 40]]
    assert cells.contours[0].min(0).tolist() == [21, 13]
    assert cells.contours[0].max(0).tolist() == [39, 27]
    assert cells.kinds.tolist() == [4]
    assert (cells.instances[13:28, 21:40] == 1).sum() == (cells.instances > 0).sum()


def test_background_leads_to_the_next_kind_and_of_equal_ones_the_lower_is_taken() -> None:
    maps = draw_maps(48, 48, [Ellipse(24, 24, 10, 10)])
    ys, xs = np.nonzero(found_in(maps).instances)
    kind = np.zeros_like(maps.kind)
    kind[ys[:20], xs[:20]] = 5
    kind[ys[20:40], xs[20:40]] = 2

    cells = find_cells(maps.nucleus, kind, maps.distance)

    assert cells.kinds.tolist() == [2]
    assert cells.kind_shares[0] == pytest.approx(20 / len(ys))


def test_where_nothing_is_background_the_lowest_number_is_no_cell_as_published() -> None:
    cells = found_in(CASES["no_background"])

    assert set(np.unique(cells.instances)) == {1, 2}
    assert cells.numbers.tolist() == [2]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_the_integers_of_the_classes_do_not_matter(dtype: type[np.integer]) -> None:
    maps = CASES["touching"]

    cells = find_cells(maps.nucleus.astype(dtype), maps.kind.astype(dtype), maps.distance)

    for field, array in as_arrays(cells).items():
        np.testing.assert_array_equal(array, GOLDEN[f"touching.{field}"], err_msg=field)


def test_threads_find_the_same_and_change_no_map() -> None:
    maps = CASES["touching_noise"]
    before = [array.copy() for array in (maps.nucleus, maps.kind, maps.distance)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(found_in, [maps] * 24))

    for cells in found:
        for field, array in as_arrays(cells).items():
            np.testing.assert_array_equal(array, GOLDEN[f"touching_noise.{field}"], err_msg=field)
    for array, was in zip((maps.nucleus, maps.kind, maps.distance), before, strict=True):
        np.testing.assert_array_equal(array, was)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_distances_that_are_not_finite_are_refused(wrong: float) -> None:
    maps = CASES["one"]
    distance = maps.distance.copy()
    distance[3, 4, 1] = wrong

    with pytest.raises(EncoderOverflowed, match="not finite"):
        find_cells(maps.nucleus, maps.kind, distance)


def test_maps_of_different_pictures_are_refused() -> None:
    maps = CASES["one"]

    with pytest.raises(ValueError, match="not of one picture"):
        find_cells(maps.nucleus, maps.kind, maps.distance[:-1])
