"""Fixtures that more than one package's tests need."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

# Minutes long: `make replicas`, which needs HAProxy, `make resumable`, `make vllm-variants`, `make two-models`, and
# `make stack`, which needs images.
_ASKED_FOR = {
    "end_to_end/test_replicas.py": "EYEPIECE_LONG_TESTS",
    "end_to_end/test_cut_uploads.py": "EYEPIECE_LONG_TESTS",
    "vllm_plugin/test_variants.py": "EYEPIECE_LONG_TESTS",
    "end_to_end/test_compose_stack.py": "EYEPIECE_STACK",
    "end_to_end/test_two_models.py": "EYEPIECE_LONG_TESTS",
    "end_to_end/test_two_vllms.py": "EYEPIECE_LONG_TESTS",
}
collect_ignore = [path for path, variable in _ASKED_FOR.items() if variable not in os.environ]
SHARED_SLIDES = Path(__file__).resolve().parents[2] / "shared" / "slides"


# What needs real servers: most share one that is started once, and no two of those that kill theirs run at once.
_WITH_SERVERS = ("tests/end_to_end/", "tests/page/", "tests/vllm_plugin/", "tests/chaos/")


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


@pytest.fixture(scope="session")
def plain_transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], list[Any]]]:
    """What plain transformers answers to a request (vllm_plugin/reference_answer.py); imported once for all."""
    from vllm_server import VLLM_PYTHON

    if not VLLM_PYTHON.exists():
        pytest.skip("vLLM's environment .venv-vllm is not built")
    command = [VLLM_PYTHON, Path(__file__).parent / "vllm_plugin" / "reference_answer.py"]
    log = tmp_path_factory.mktemp("transformers") / "stderr.log"
    with (
        log.open("wb") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        sent, received = process.stdin, process.stdout
        assert sent is not None
        assert received is not None

        def answer(request: dict[str, Any]) -> list[Any]:
            with suppress(BrokenPipeError):  # it died, and the log says of what
                sent.write(json.dumps(request) + "\n")
                sent.flush()
            line = received.readline()
            assert line, log.read_text()
            return list(json.loads(line))

        yield answer
