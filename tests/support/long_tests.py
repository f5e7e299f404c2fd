"""Matrices of which the suite runs a representative part, and `make vllm-variants`, `make hierarchy` and `make
encoders` all."""

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

Case = TypeVar("Case")


def all_or(kept: Sequence[Case], cases: Iterable[Case]) -> list[Case]:
    """All cases where long tests are asked for, else those kept."""
    return list(cases) if "EYEPIECE_LONG_TESTS" in os.environ else list(kept)
