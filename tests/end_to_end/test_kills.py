"""Processes that die in the middle of a slide: the slide gets ready all the same, once, and nothing is left behind."""

from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from running_server import RunningServer, ask, upload, wait_for_outcome

from synthetic.write_slide import write_sample_slide

pytestmark = pytest.mark.vllm


def begin_encode(client: httpx.Client, path: Path) -> str:
    """Upload a slide and return its id once its first tiles are being encoded."""
    with path.open("rb") as file:
        slide_id = str(client.post("/v1/slides", files={"file": (path.name, file)}).json()["id"])
    with client.stream("GET", f"/v1/slides/{slide_id}/events") as events:
        next(line for line in events.iter_lines() if '"encode_tiles"' in line)
    return slide_id


def child_named(server: RunningServer, word: str) -> psutil.Process:
    children = server.process.children(recursive=True)
    return next(child for child in children if any(word in argument for argument in child.cmdline()))


@pytest.mark.parametrize(("victim", "seed"), [("encoders.tiling.isolation.reader_child", 21), ("worker", 22)])
def test_a_slide_survives_the_death_of_what_encodes_it(
    server: RunningServer, client: httpx.Client, tmp_path: Path, victim: str, seed: int
) -> None:
    path = tmp_path / "large.tiff"
    write_sample_slide(path, seed=seed, width_px=8_000, height_px=6_000)
    slide_id = begin_encode(client, path)

    child_named(server, victim).kill()

    assert wait_for_outcome(client, slide_id) == "ready"
    slide: dict[str, Any] = client.get(f"/v1/slides/{slide_id}").json()
    assert (slide["status"], slide["error"]) == ("ready", None)
    assert ask(client, slide_id, "What tissue is this?")["usage"]["slide_tokens"] == 32
    folder = server.data_dir / "store/tenants/default/slides" / slide_id
    assert [file.name for file in (folder / "embeddings").iterdir()] == [f"{slide['encoder_id']}.safetensors"]
    assert [file for file in (folder / "parts").rglob("*") if file.is_file()] == []
    again = upload(client, path)
    assert again == slide
