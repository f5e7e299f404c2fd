"""Fixtures that more than one package's tests need."""

import os
from pathlib import Path

import pytest

# Minutes long, and not yet proven to pass on every machine: `make chaos`, `make replicas`.
collect_ignore = [] if "EYEPIECE_LONG_TESTS" in os.environ else ["chaos/test_chaos.py", "end_to_end/test_replicas.py"]
SHARED_SLIDES = Path(__file__).resolve().parents[2] / "shared" / "slides"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For pytest-xdist: one process has all that need real servers, which start once, and begins with them; the other
    tests go file by file to whoever is free."""
    items.sort(key=lambda item: not _needs_servers(item))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("servers" if _needs_servers(item) else item.path.name))


def _needs_servers(item: pytest.Item) -> bool:
    return "end_to_end" in item.path.parts or item.get_closest_marker("vllm") is not None


@pytest.fixture(scope="session")
def shared_slides() -> Path:
    """Public slides, good and bad, that are too large or not ours to keep in the repository."""
    if not SHARED_SLIDES.is_dir():
        pytest.skip("the folder of public test slides (../shared/slides) is not here")
    return SHARED_SLIDES
