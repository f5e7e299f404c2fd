"""Toys of the hierarchical kind, shared by all that is tested of it."""

from collections.abc import Iterator

import pytest
from hierarchical_toys import (
    DarkIsNucleus,
    hierarchical_toy,
    spec_of,
    stage_with_dark_cells,
)

from encoders.pipeline import Encoders, load_encoders
from encoders.slide_stages.hierarchical import HierarchicalStage
from model_store.installed import InstalledModel


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return hierarchical_toy(tmp_path_factory.mktemp("hierarchical"))


@pytest.fixture(scope="session")
def small(toy: InstalledModel) -> Iterator[HierarchicalStage]:
    """Regions of one picture, cells that are found."""
    spec = spec_of(toy)
    stage = stage_with_dark_cells(
        toy, spec.model_copy(update={"regions": spec.regions.model_copy(update={"region_px": 256})})
    )
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def encoders(toy: InstalledModel) -> Iterator[Encoders]:
    with load_encoders(toy, "cpu") as loaded:
        loaded.stage.encoder._cellvit = DarkIsNucleus(spec_of(toy).cellvit.embed_dim)
        yield loaded
