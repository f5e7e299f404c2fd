from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from small_recipes import small

from benchmarks.synthetic_slides import write_slide


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The small slide of a recipe's name, drawn once."""

    @cache
    def drawn(name: str) -> Path:
        path = tmp_path_factory.mktemp("slides") / f"{name}.svs"
        write_slide(path, small(name))
        return path

    return drawn


@pytest.fixture(scope="session")
def small_s420(small_slide: Callable[[str], Path]) -> Path:
    return small_slide("s420")
