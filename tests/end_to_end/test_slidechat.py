"""A toy SlideChat through every process: its trainer's file converted, `eyepiece up`, a slide and features of others.

`make vllm-kinds` runs it; a start of vLLM.
"""

import json
import os
from pathlib import Path

import httpx
import numpy as np
import pytest
from features_files import write_hdf5
from running_server import ask, running_server, upload
from toy_slidechat import MAX_ROWS, WIDTH, ToySlideChat

from encoders.expected_shapes import expected_shapes
from model_store.convert.convert_model import convert_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="a start of vLLM; `make vllm-kinds`"),
]
QUESTION = "What is the histological type?"


def features(folder: Path, count: int) -> Path:
    rows = np.random.default_rng(count).standard_normal((count, WIDTH)).astype(np.float32)
    coords = np.stack([np.arange(count) % 40, np.arange(count) // 40], axis=1) * 64
    return write_hdf5(folder / f"{count}.h5", rows, coords, patch_size=64, patch_size_level0=64)


def first_chunk(client: httpx.Client, slide_id: str) -> dict[str, object]:
    content = [{"type": "slide", "slide": {"id": slide_id}}, {"type": "text", "text": QUESTION}]
    body = {"model": "slidechat", "stream": True, "messages": [{"role": "user", "content": content}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    chunk: dict[str, object] = json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))
    return chunk


def test_a_slide_and_features_of_others_are_answered_row_by_row(tmp_path: Path, sample_path: Path) -> None:
    toy = ToySlideChat(tmp_path / "downloads")
    toy.write_trainer()
    data_dir = tmp_path / "data"
    convert_model(toy.manifest, toy.folder, data_dir / "models", expected_shapes(toy.manifest), lambda _: None)

    with (
        running_server(data_dir, tmp_path / "up.log", "slidechat") as server,
        server.client() as client,
    ):
        slide = upload(client, sample_path)
        given = {count: upload(client, features(tmp_path, count)) for count in (3, 300, 1_000)}
        answers = {count: ask(client, it["id"], QUESTION, temperature=0) for count, it in given.items()}
        seen = ask(client, slide["id"], QUESTION, temperature=0)
        then = ask(client, slide["id"], "Why?", conversation_id=seen["conversation_id"], temperature=0)
        said = first_chunk(client, given[1_000]["id"])

    assert slide["status"] == "ready", slide
    assert seen["usage"]["slide_tokens"] == then["usage"]["slide_tokens"] == min(slide["tile_count"], MAX_ROWS)
    assert then["usage"]["cached_tokens"] > 0, "a follow-up finds the slide in the prefix cache"
    assert {count: it["usage"]["slide_tokens"] for count, it in answers.items()} == {3: 3, 300: 300, 1_000: MAX_ROWS}
    codes = {count: [it["code"] for it in answer["warnings"]] for count, answer in answers.items()}
    assert codes == {3: [], 300: [], 1_000: ["tiles_thinned"]}
    [doubt] = answers[1_000]["warnings"]
    assert "1000 tiles" in doubt["detail"]
    assert said["warnings"] == [doubt]
    assert given[1_000]["warnings"] == [doubt]
