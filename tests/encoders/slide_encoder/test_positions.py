from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.errors import SlideError
from encoders.slide_encoder.positions import CoordinatesOutOfRange, grid_index, position_rows


def published_table(slide_ngrids: int, embed_dim: int) -> torch.Tensor:
    """The full table as the published formula builds it, without its class token row: [slide_ngrids², D]."""
    y, x = np.meshgrid(np.arange(slide_ngrids), np.arange(slide_ngrids))
    omega = 1.0 / 10000 ** (np.arange(embed_dim // 4, dtype=np.float64) / (embed_dim / 4))
    angles = [axis.reshape(-1, 1).astype(np.float64) * omega for axis in (y, x)]
    halves = [np.concatenate([np.sin(angle), np.cos(angle)], axis=1) for angle in angles]
    return torch.from_numpy(np.concatenate(halves, axis=1)).float()


@pytest.mark.parametrize(("slide_ngrids", "embed_dim"), [(50, 96), (13, 4), (30, 768)])
def test_rows_equal_the_full_published_table_bit_for_bit(slide_ngrids: int, embed_dim: int) -> None:
    index = torch.arange(slide_ngrids**2)

    assert torch.equal(position_rows(index, slide_ngrids, embed_dim), published_table(slide_ngrids, embed_dim))


def test_rows_anywhere_on_the_published_grid_equal_the_formula_bit_for_bit() -> None:
    index = torch.from_numpy(np.random.default_rng(0).integers(1000**2, size=2_000))

    rows = position_rows(index, 1000, 768).numpy()

    omega = 1.0 / 10000 ** (np.arange(192, dtype=np.float64) / 192)
    x, y = np.divmod(index.numpy().astype(np.float64)[:, None], 1000)
    expected = np.concatenate([wave(axis * omega) for axis in (y, x) for wave in (np.sin, np.cos)], axis=1)
    assert np.array_equal(rows, expected.astype(np.float32))


def test_the_index_runs_down_a_column_then_to_the_next() -> None:
    coords = torch.tensor([[0, 0], [0, 256], [255, 511], [256, 0], [511.9, 700]])

    assert grid_index(coords, 256, slide_ngrids=1000).tolist() == [0, 1, 1, 1000, 1002]


def test_whole_and_fractional_coordinates_give_the_same_index() -> None:
    coords = torch.randint(0, 256_000, (500, 2))

    assert torch.equal(grid_index(coords, 256, 1000), grid_index(coords.double(), 256, 1000))


class ReciprocalDivision(TorchDispatchMode):
    """Divides by a number as CUDA does, and only what is not the CPU's contract: multiplies by its reciprocal."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.div.Tensor and not isinstance(args[1], torch.Tensor):
            dividend = args[0] if args[0].is_floating_point() else args[0].float()
            if dividend.dtype != torch.float64:
                return dividend * (torch.ones((), dtype=dividend.dtype) / args[1])
        return func(*args, **(kwargs or {}))


def test_every_stride_has_the_cells_of_whole_numbers() -> None:
    wrong, wrong_there = [], []
    for stride in range(100, 2100):
        column = torch.arange(0, 900, 3)
        coords = column[:, None].repeat(1, 2) * stride
        with ReciprocalDivision():
            index = grid_index(coords, stride, 1000)
            cells = torch.floor(coords / stride)
        wrong += [stride] * (not torch.equal(index, column * 1001))
        wrong_there += [stride] * (not torch.equal(cells.long(), coords // stride))

    assert wrong == []
    assert len(wrong_there) > 100, "the device's own division would be noticed"


def test_a_wider_stride_gives_a_coarser_grid() -> None:
    coords = torch.tensor([[512, 1024]])

    assert grid_index(coords, 512, 1000).tolist() == [1002]


def test_a_y_beyond_the_grid_runs_on_into_the_next_column_as_published() -> None:
    assert grid_index(torch.tensor([[0, 1000 * 256]]), 256, 1000).tolist() == [1000]


@pytest.mark.parametrize(
    "coord",
    [(-1, 0), (0, -128), (256, -256), (1000 * 256, 0), (999 * 256, 1000 * 256), (float("nan"), 0), (0, float("inf"))],
)
def test_a_tile_outside_the_grid_is_refused_with_what_to_do(coord: tuple[float, float]) -> None:
    coords = torch.tensor([(0, 0), coord, (512, 512)], dtype=torch.float32)

    with pytest.raises(CoordinatesOutOfRange, match=r"1 of 3 tiles .* level-0 pixels .* tile_size") as raised:
        grid_index(coords, 256, slide_ngrids=1000)

    assert isinstance(raised.value, SlideError)
    assert raised.value.code == "slide_too_large"


@pytest.mark.parametrize("tile_size", [0, -256, float("nan")])
def test_an_impossible_tile_size_is_refused(tile_size: float) -> None:
    with pytest.raises(ValueError, match="tile_size"):
        grid_index(torch.zeros(1, 2), tile_size, 1000)
