"""Fixtures that more than one package's tests need."""

import os
from pathlib import Path

import pytest

# Minutes long, and not yet proven to pass on every machine: `make chaos`, `make replicas`.
collect_ignore = [] if "EYEPIECE_LONG_TESTS" in os.environ else ["chaos/test_chaos.py", "end_to_end/test_replicas.py"]
SHARED_SLIDES = Path(__file__).resolve().parents[2] / "shared" / "slides"


@pytest.fixture(scope="session")
def shared_slides() -> Path:
    """Public slides, good and bad, that are too large or not ours to keep in the repository."""
    if not SHARED_SLIDES.is_dir():
        pytest.skip("the folder of public test slides (../shared/slides) is not here")
    return SHARED_SLIDES
