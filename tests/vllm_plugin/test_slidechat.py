"""SlideChat from its trainer's file to logits, in a real vLLM: what plain transformers makes of the published tensors.

A toy at every size but the layout. `make vllm-kinds` runs it; a start of vLLM.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from plain_slidechat import plain_rows
from toy_slidechat import MAX_ROWS, WIDTH, ToySlideChat
from vllm_requests import npy, slide_part
from vllm_server import VllmServer, running_vllm

from encoders.expected_shapes import expected_shapes
from encoders.pipeline import load_encoders
from encoders.slide_stages.tile_stage import Tiles, TileStage
from model_store.convert.convert_model import convert_model
from model_store.installed import InstalledModel

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="a start of vLLM; `make vllm-kinds`"),
]

REFERENCE = Path(__file__).parent / "reference_composition.py"
QUESTION, FOLLOW_UP = "What is the histological type?\nA. Carcinoma\nB. Lymphoma", "Is there necrosis?"
BEFORE, AFTER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
MAX_TOKENS = 12


def test_rows_and_logits_are_those_of_the_published_composition(tmp_path: Path, vllm_python: Path) -> None:
    toy = ToySlideChat(tmp_path / "downloads")
    toy.write_trainer()
    model = convert_model(toy.manifest, toy.folder, tmp_path / "models", expected_shapes(toy.manifest), print)
    stage = load_encoders(model, "cpu").stage
    assert isinstance(stage, TileStage)
    prefix = "LongNet_encoder."
    longnet = {name.removeprefix(prefix): tensor for name, tensor in toy.part(prefix).items()}
    cases: list[dict[str, Any]] = []
    with running_vllm(model.llm_folder, toy.manifest.llm.served_name, tmp_path) as vllm:
        for count in (3, 300, 1_000):
            features = np.random.default_rng(count).standard_normal((count, WIDTH), dtype=np.float32)
            tensors = stage._tensors({"tiles": Tiles(features, np.zeros((count, 2), np.int64), 64, 64)}, lambda: None)
            rows = tensors["slide_tokens"]
            assert len(rows) == min(count, MAX_ROWS)
            chosen = np.linspace(0, count - 1, MAX_ROWS, dtype=int) if count >= MAX_ROWS else np.arange(count)
            plain = plain_rows(longnet, torch.from_numpy(features[chosen])).numpy().astype(np.float16)
            first = asked(vllm, rows, [(QUESTION, None)])
            then = asked(vllm, rows, [(QUESTION, first["text"]), (FOLLOW_UP, None)])
            turns = f"\n{QUESTION}{AFTER}{first['text']}<|im_end|>\n{BEFORE}{FOLLOW_UP}{AFTER}"
            cases.append(first | {"slide": npy(plain), "after": f"\n{QUESTION}{AFTER}"})
            cases.append(then | {"slide": npy(plain), "after": turns})

    for case, said in zip(cases, reference(model, cases, vllm_python), strict=True):
        assert case["prompt_tokens"] == said["prompt_tokens"]
        np.testing.assert_allclose(case["logprobs"], said["logprobs"], atol=1e-4)
        assert said["closest"] < 1e-3 or case["token_ids"] == said["greedy"]
    assert len({tuple(case["token_ids"]) for case in cases}) > 2, "answers depend on slide and question"


def asked(vllm: VllmServer, rows: NDArray[Any], turns: list[tuple[str, str | None]]) -> dict[str, Any]:
    """One greedy answer to the last of the turns, its tokens' log-probabilities, and that vLLM saw all rows."""
    messages: list[dict[str, Any]] = []
    for number, (question, answer) in enumerate(turns):
        text = {"type": "text", "text": question}
        messages.append({"role": "user", "content": [slide_part(npy(rows)), text] if number == 0 else [text]})
        messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    said = vllm.chat(messages, max_tokens=MAX_TOKENS, logprobs=True, return_token_ids=True).raise_for_status().json()
    assert said["usage"]["prompt_tokens_details"]["multimodal_tokens"] == {"image": len(rows)}
    [choice] = said["choices"]
    return {
        "before": BEFORE,
        "prompt_tokens": said["usage"]["prompt_tokens"],
        "token_ids": choice["token_ids"],
        "logprobs": [token["logprob"] for token in choice["logprobs"]["content"]],
        "text": choice["message"]["content"],
    }


def reference(model: InstalledModel, cases: list[dict[str, Any]], vllm_python: Path) -> list[dict[str, Any]]:
    wanted = [{key: case[key] for key in ("slide", "before", "after", "token_ids")} for case in cases]
    request = json.dumps({"folder": str(model.llm_folder), "cases": wanted})
    run = subprocess.run([vllm_python, REFERENCE], input=request, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return list(json.loads(run.stdout))
