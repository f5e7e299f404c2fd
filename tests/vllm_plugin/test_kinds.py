"""Composed models in a real vLLM: what it says of each token is what plain transformers says of the same composition.

One composition is part of the suite: a row for each tile, an MLP and a Qwen2 as in SlideChat, the rows in front as in
MLLM-HWSI. `make vllm-kinds` runs the others, a start of vLLM for each.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_kinds import HIDDEN, documented_manifest, toy_of
from vllm_requests import npy, question, slide_part, slide_tokens
from vllm_server import VllmServer, running_vllm

from model_store.installed import InstalledModel
from model_store.manifest import Manifest

pytestmark = pytest.mark.vllm

REFERENCE = Path(__file__).parent / "reference_composition.py"
SYSTEM = "You are an expert histopathology assistant."
LLAVA = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
QUESTIONS = ("What is the histological type?", "Is there necrosis?")
MAX_TOKENS = 12


def chatml(place: str) -> Manifest:
    prompt = {"kind": "chatml", "system": SYSTEM, "rows": place}
    return documented_manifest(prompt=prompt)


# Each with its prompt, written out: what stands before the slide's rows, and behind them.
COMPOSITIONS: dict[str, tuple[Manifest, str, str]] = {
    "qwen2, mlp, rows in front": (
        chatml("front"),
        "",
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nQUESTION<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2, mlp, rows in the turn": (
        chatml("user"),
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
        "\nQUESTION<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2, no projector, rows in front": (
        documented_manifest(("slide_stage", "none"), ("projector", "none"), prompt=chatml("front").prompt.model_dump()),
        "",
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nQUESTION<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama, mlp, llava": (
        documented_manifest(("prompt", "llava")),
        f"<s>{LLAVA} USER: ",
        "\nQUESTION ASSISTANT:",
    ),
}
FIRST, *OTHERS = COMPOSITIONS


@pytest.mark.parametrize("name", COMPOSITIONS if "EYEPIECE_LONG_TESTS" in os.environ else [FIRST])
def test_tokens_are_as_likely_as_plain_transformers_makes_them(name: str, vllm_python: Path, tmp_path: Path) -> None:
    manifest, before, after = COMPOSITIONS[name]
    model = toy_of(manifest, tmp_path)
    cases: list[dict[str, Any]] = []
    with running_vllm(model.llm_folder, manifest.llm.served_name, tmp_path) as vllm:
        # As many rows as tiles: a slide of 3, and one of 300.
        for count in (3, 300):
            slide = npy(slide_tokens(count, HIDDEN, seed=count))
            for text in QUESTIONS:
                cases.append(
                    asked(vllm, slide, count, text) | {"before": before, "after": after.replace("QUESTION", text)}
                )

    for case, plain in zip(cases, reference(model, cases, vllm_python), strict=True):
        assert case["prompt_tokens"] == plain["prompt_tokens"]
        np.testing.assert_allclose(case["logprobs"], plain["logprobs"], atol=1e-4)
        assert plain["closest"] < 1e-3 or case["token_ids"] == plain["greedy"]
    assert len({tuple(case["token_ids"]) for case in cases}) > 1, "answers depend on what is asked"


def asked(vllm: VllmServer, slide: str, count: int, text: str) -> dict[str, Any]:
    """One greedy answer, its tokens' log-probabilities, and that vLLM saw all rows."""
    body = vllm.chat([question(text, slide_part(slide))], max_tokens=MAX_TOKENS, logprobs=True, return_token_ids=True)
    said = body.raise_for_status().json()
    assert said["usage"]["prompt_tokens_details"]["multimodal_tokens"] == {"image": count}
    [choice] = said["choices"]
    return {
        "slide": slide,
        "prompt_tokens": said["usage"]["prompt_tokens"],
        "token_ids": choice["token_ids"],
        "logprobs": [token["logprob"] for token in choice["logprobs"]["content"]],
    }


def reference(model: InstalledModel, cases: list[dict[str, Any]], vllm_python: Path) -> list[dict[str, Any]]:
    wanted = [{key: case[key] for key in ("slide", "before", "after", "token_ids")} for case in cases]
    request = json.dumps({"folder": str(model.llm_folder), "cases": wanted})
    run = subprocess.run([vllm_python, REFERENCE], input=request, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return list(json.loads(run.stdout))
