"""Cells of the tissue, and what is left out for each: the same on both sides, and none of the tissue forgotten."""

import numpy as np
import pytest

from encoders.errors import UnknownCell
from encoders.evidence.cells import around, divide, evidence_id, left_out, parts_of

SIDE = 100


def tiles(columns: int, rows: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64) * SIDE + [700, 300]


@pytest.mark.parametrize(("columns", "rows"), [(16, 16), (10, 10), (3, 9), (20, 1), (4, 4)])
def test_every_tile_lies_in_one_cell_and_inside_its_rectangle(columns: int, rows: int) -> None:
    coords = tiles(columns, rows)
    cells = divide(coords, SIDE)

    assert sorted(np.concatenate([cell.tiles for cell in cells]).tolist()) == list(range(len(coords)))
    assert len({cell.name for cell in cells}) == len(cells) <= 64
    for cell in cells:
        centres = coords[cell.tiles] + SIDE / 2
        assert ((centres >= [cell.x, cell.y]) & (centres <= [cell.x + cell.width, cell.y + cell.height])).all()


def test_a_cell_is_divided_again_into_cells_of_its_own_tiles() -> None:
    coords = tiles(64, 64)
    parent = next(cell for cell in divide(coords, SIDE) if cell.name == "r2c5")
    finer = divide(coords, SIDE, "r2c5")

    assert len(finer) == 16
    assert sorted(np.concatenate([cell.tiles for cell in finer]).tolist()) == parent.tiles.tolist()
    assert finer[0].name == "r2c5_r0c0"
    with pytest.raises(UnknownCell, match="no cell 'r9c9'"):
        divide(coords, SIDE, "r9c9")


def test_an_area_is_a_cell_with_those_around_it_and_its_control_is_as_large() -> None:
    coords = tiles(16, 16)
    cells = divide(coords, SIDE)
    every = left_out(cells, len(coords), "evi_" + "a" * 32)
    by_name = {it.name: it.tiles for it in every}
    corner = next(cell for cell in cells if cell.name == "r0c0")

    assert [it.name for it in around(cells, corner)] == ["r0c0", "r0c1", "r1c0", "r1c1"]
    assert len(by_name["without_r0c0"]) == 4 * 4
    assert len(by_name["without_r3c3"]) == 9 * 4
    assert all(len(set(by_name[f"control_{it.name}"])) == len(by_name[f"without_{it.name}"]) for it in cells)
    assert [it.name for part in parts_of(every) for it in part] == [it.name for it in every]


def test_controls_are_drawn_by_the_name_of_the_evidence_alone() -> None:
    coords = tiles(16, 16)
    cells = divide(coords, SIDE)
    names = [evidence_id("a" * 64, "b" * 16, region, parent) for region in (None, "reg_1") for parent in (None, "r0c0")]
    first, again, other = (left_out(cells, len(coords), name) for name in (names[0], names[0], names[1]))

    assert len(set(names)) == 4
    assert all((one.tiles == two.tiles).all() for one, two in zip(first, again, strict=True))
    assert any((one.tiles != two.tiles).any() for one, two in zip(first, other, strict=True))
