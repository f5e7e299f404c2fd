"""Fixtures that more than one package's tests need."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Minutes long: `make replicas`, which needs HAProxy, `make vllm-variants`, and `make stack`, which needs images.
_ASKED_FOR = {
    "end_to_end/test_replicas.py": "EYEPIECE_LONG_TESTS",
    "vllm_plugin/test_variants.py": "EYEPIECE_LONG_TESTS",
    "end_to_end/test_compose_stack.py": "EYEPIECE_STACK",
}
collect_ignore = [path for path, variable in _ASKED_FOR.items() if variable not in os.environ]
SHARED_SLIDES = Path(__file__).resolve().parents[2] / "shared" / "slides"


# What needs real servers: most share one that is started once, and no two of those that kill theirs run at once.
_WITH_SERVERS = ("tests/end_to_end/", "tests/vllm_plugin/", "tests/chaos/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the tests that take longest in one go."""
    items.sort(key=lambda item: not item.nodeid.startswith(_WITH_SERVERS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Two processes: all that needs real servers goes to the same one, the other tests file by file to whoever is free.

    xdist's own groups (`--dist loadgroup`, 3.8) are no groups under pytest 9.2; its scheduler asks this method which
    tests belong together.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "servers" if nodeid.startswith(_WITH_SERVERS) else nodeid.split("::", 1)[0]

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _gpus_as_they_were() -> Iterator[None]:
    """What runs in this process as a command of its own hides GPUs from it (`encoders.one_gpu`)."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield
    if before is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.fixture(scope="session")
def shared_slides() -> Path:
    """Public slides, good and bad, that are too large or not ours to keep in the repository."""
    if not SHARED_SLIDES.is_dir():
        pytest.skip("the folder of public test slides (../shared/slides) is not here")
    return SHARED_SLIDES
