"""One vLLM server with an untrained model for all tests of the plugin, and slides to send to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from untrained_model import untrained_model
from vllm_server import VLLM_PYTHON, VllmServer, running_vllm

from model_store.installed import InstalledModel

Conversations = list[dict[str, Any]]
Answers = list[list[dict[str, Any]]]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    """The untrained model, freshly made."""
    return untrained_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of vLLM's environment."""
    if not VLLM_PYTHON.exists():
        pytest.skip("vLLM's environment .venv-vllm is not built")
    return VLLM_PYTHON


@pytest.fixture(scope="session")
def vllm(demo: InstalledModel, vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A running server with the untrained model."""
    with running_vllm(demo.llm_folder, demo.manifest.llm.served_name, tmp_path_factory.mktemp("vllm")) as server:
        yield server


@pytest.fixture(scope="session")
def reference(
    demo: InstalledModel, plain_transformers: Callable[[dict[str, Any]], list[Any]]
) -> Callable[[Conversations], Answers]:
    """What plain transformers answers to conversations; see reference_answer.py."""
    return lambda conversations: plain_transformers({"folder": str(demo.llm_folder), "conversations": conversations})
