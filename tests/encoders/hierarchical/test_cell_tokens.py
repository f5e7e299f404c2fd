"""A cell's vector is the mean of the tokens under it."""

import numpy as np
import pytest
import torch
from drawn_cells import drawn_cases
from hashed_numbers import hashed_uniform
from hwsi_vectors import cases_of, needs_vectors, recipe, vectors_of
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoders.hierarchical.cell_tokens import cell_tokens
from encoders.hierarchical.find_cells import find_cells


def pooled(tokens: Tensor, instances: NDArray[np.int32], numbers: NDArray[np.int32]) -> Tensor:
    """The published way: a mask, averaged over each token's pixels, counts where more than nothing is left."""
    rows = []
    for number in numbers:
        mask = torch.from_numpy(instances == number).float()[None, None]
        rows.append(tokens[:, functional.avg_pool2d(mask, 16)[0, 0] > 0].mean(1))
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["border", "touching", "no_background", "holes"])
def test_tokens_are_averaged_as_published(name: str) -> None:
    maps = drawn_cases()[name]
    cells = find_cells(maps.nucleus, maps.kind, maps.distance)
    tokens = hashed_uniform("tokens", 24, *(side // 16 for side in cells.instances.shape))

    vectors = cell_tokens(tokens, cells.instances, cells.numbers)

    torch.testing.assert_close(vectors, pooled(tokens, cells.instances, cells.numbers), atol=1e-6, rtol=0)


@needs_vectors
@pytest.mark.parametrize("name", cases_of("cell_tokens"))
def test_tokens_are_averaged_as_in_the_reference_vectors(name: str) -> None:
    case, found = cases_of("cell_tokens")[name], vectors_of("find_cells")
    tokens = torch.from_numpy(recipe().rows(case["seed"], *case["shape"]))

    vectors = cell_tokens(tokens, found[f"{name}.instances"].numpy(), found[f"{name}.numbers"].numpy())

    torch.testing.assert_close(vectors, vectors_of("cell_tokens")[name], atol=1e-5, rtol=0)


def test_one_pixel_is_enough_and_counts_as_much_as_all() -> None:
    instances = np.zeros((32, 48), np.int32)
    instances[:16, :16] = 7
    instances[15, 16] = 7
    instances[31, 47] = 3
    tokens = torch.arange(12.0).view(2, 2, 3)

    vectors = cell_tokens(tokens, instances, np.array([7, 3]))

    assert vectors.tolist() == [[0.5, 6.5], [5, 11]]


def test_no_cells_have_no_vectors() -> None:
    vectors = cell_tokens(torch.zeros(24, 4, 4), np.zeros((64, 64), np.int32), np.zeros(0, np.int32))

    assert vectors.shape == (0, 24)


def test_half_precision_is_averaged_in_full() -> None:
    instances = np.ones((32, 32), np.int32)
    tokens = torch.tensor([1.0, 1.0009765625, 1.0, 1.0], dtype=torch.float16).view(1, 2, 2)

    vectors = cell_tokens(tokens, instances, np.array([1]))

    assert vectors.dtype == torch.float32
    assert vectors.item() == pytest.approx(1 + 2**-12, abs=1e-8)


def test_tokens_of_another_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="do not cover"):
        cell_tokens(torch.zeros(24, 4, 4), np.zeros((64, 80), np.int32), np.zeros(0, np.int32))


@pytest.mark.parametrize("number", [0, 2, 9])
def test_numbers_of_no_cell_are_refused(number: int) -> None:
    instances = np.zeros((32, 32), np.int32)
    instances[4:8, 4:8] = 3

    with pytest.raises(ValueError, match="not of cells"):
        cell_tokens(torch.zeros(24, 2, 2), instances, np.array([number]))
