"""A vector for each cell: the mean of the network's tokens that lie under it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.hierarchical.cellvit import TOKEN_PX


def cell_tokens(tokens: Tensor, instances: NDArray[np.integer], numbers: NDArray[np.integer]) -> Tensor:
    """[D, h, w] and a map of numbers [16 h, 16 w] → [K, D] in the order of `numbers`, float32, on the tokens' device.

    A token counts as soon as one of its 16 x 16 pixels is the cell's, and no more for a hundred: MLLM-HWSI's
    "mask_mean". Raises ValueError when the sizes do not go together, or a number is not in the map.
    """
    width, *grid = tokens.shape
    if instances.shape != (grid[0] * TOKEN_PX, grid[1] * TOKEN_PX):
        raise ValueError(
            f"{grid} tokens do not cover a map of {list(instances.shape)} pixels at {TOKEN_PX} px a token."
        )
    touched = np.zeros((int(instances.max(initial=0)) + 1, *grid), bool)
    rows, columns = (np.arange(side) // TOKEN_PX for side in instances.shape)
    touched[instances, rows[:, None], columns] = True
    if numbers.size and (numbers.min() < 1 or numbers.max() >= len(touched) or not touched[numbers].any((1, 2)).all()):
        raise ValueError("Some of the numbers are not of cells in this map.")
    under = torch.from_numpy(touched[numbers].reshape(len(numbers), grid[0] * grid[1])).to(tokens.device, torch.float32)
    return under @ tokens.float().reshape(width, -1).T / under.sum(1, keepdim=True)
