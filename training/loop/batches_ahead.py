"""Batches made before they are needed, in order: bounded by what the worker processes may hold."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

# Batches each worker may be ahead: covers a batch that takes longer than others; more would only hold memory.
_AHEAD = 2


class _Batches(Dataset[Mapping[str, Tensor]]):
    def __init__(self, make: Callable[[int], Mapping[str, Tensor]]) -> None:
        self._make = make

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        return self._make(index)


def batches_ahead(
    make: Callable[[int], Mapping[str, Tensor]], indices: range, workers: int, *, pin_memory: bool
) -> Iterator[Mapping[str, Tensor]]:
    """`make(index)` for each index in order, made by `workers` processes of one thread each, or by none, in time."""
    loader = DataLoader(
        _Batches(make),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        pin_memory=pin_memory,
    )
    return iter(loader)
