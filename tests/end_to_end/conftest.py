"""One real server for all end-to-end tests of a run: starting vLLM takes a minute."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import RunningServer, running_server, upload

from synthetic.write_slide import write_sample_slide


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("eyepiece")
    with running_server(folder / "data", folder / "up.log") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def sample_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "sample.tiff"
    write_sample_slide(path, seed=7, width_px=2048, height_px=1536)
    return path


@pytest.fixture(scope="session")
def slide(server: RunningServer, sample_path: Path) -> dict[str, Any]:
    """A synthetic slide, encoded."""
    with server.client() as client:
        slide = upload(client, sample_path)
    assert slide["status"] == "ready", slide
    return slide
