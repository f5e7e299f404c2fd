"""Composed models in a real vLLM: what it says of each token is what plain transformers says of the same composition.

One composition is part of the suite: a row for each tile, an MLP and a Qwen2 as in SlideChat, the rows in front as in
MLLM-HWSI. `make vllm-kinds` runs the others, a start of vLLM for each.
"""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_kinds import HIDDEN, documented_manifest, toy_of
from vllm_requests import ONE_REPLY_WITH_IDS, body_from_the_server, npy, question, slide_part, slide_tokens
from vllm_server import VllmServer, running_vllm

from model_store.files.control_tokens import control_tokens
from model_store.installed import InstalledModel
from model_store.manifest import GenerationDefaults, Manifest
from server.asking.control_text import ControlText
from server.asking.conversations import Conversation, Turn
from server.asking.questions import SamplingOptions, conversation_messages, question_text, sampling
from server.embeddings.slide_inputs import SlideInput

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

        conversation = converse(vllm, model, before, after) if name == FIRST else []

    scored = [{key: case[key] for key in ("slide", "before", "after", "token_ids")} for case in cases]
    wanted = [{key: case[key] for key in ("slide", "before", "after", "options")} for case in conversation]
    plain_answers = reference(model, scored + wanted, vllm_python)
    for case, plain in zip(conversation, plain_answers[len(cases) :], strict=True):
        assert (case["prompt_tokens"], case["token_ids"]) == (plain["prompt_tokens"], plain["token_ids"])
    for case, plain in zip(cases, plain_answers[: len(cases)], strict=True):
        assert case["prompt_tokens"] == plain["prompt_tokens"]
        np.testing.assert_allclose(case["logprobs"], plain["logprobs"], atol=1e-4)
        assert plain["closest"] < 1e-3 or case["token_ids"] == plain["greedy"]
    assert len({tuple(case["token_ids"]) for case in cases}) > 1, "answers depend on what is asked"


def converse(vllm: VllmServer, model: InstalledModel, before: str, after: str) -> list[dict[str, Any]]:
    """Three questions in one conversation, as the server sends them: greedy, with the penalties of MLLM-HWSI.

    64 rows stand in front, as its slides have. Every answer is part of the next prompt.
    """
    encoded = npy(slide_tokens(64, HIDDEN, seed=64))
    slide, now = SlideInput(encoded, "c" * 64, 64, "route"), datetime.now(UTC)
    defaults = GenerationDefaults(
        temperature=0, max_tokens=32, top_k=20, no_repeat_ngram_size=3, generated_repetition_penalty=1.15
    )
    manifest = model.manifest.model_copy(update={"llm": model.manifest.llm.model_copy(update={"generation": defaults})})
    how, control = sampling(SamplingOptions(), manifest), ControlText(control_tokens(model.llm_folder))
    conversation = Conversation(id="c", slide_id="s", created_at=now)
    answered: list[dict[str, Any]] = []
    for text in (*QUESTIONS, "And<|im_end|> which grade?"):
        body = body_from_the_server(
            conversation_messages(slide, conversation, question_text(text, 1_000, control), control), how
        )
        said = vllm.post("/v1/chat/completions", {**body, **ONE_REPLY_WITH_IDS}).raise_for_status().json()
        [choice] = said["choices"]
        asked = after.replace("QUESTION", text.replace("<|im_end|>", ""))
        answered.append(
            {
                "slide": encoded,
                "before": before,
                "after": asked,
                "prompt_tokens": said["usage"]["prompt_tokens"],
                "token_ids": choice["token_ids"],
                "options": {"max_new_tokens": 32, "no_repeat_ngram_size": 3, "repetition_penalty": 1.15},
            }
        )
        answer = choice["message"]["content"]
        turn = Turn(question=text, answer=answer, created_at=now)
        conversation = conversation.model_copy(update={"turns": (*conversation.turns, turn)})
        after = (
            f"{asked}{control.cleaned(answer)}<|im_end|>\n<|im_start|>user\nQUESTION<|im_end|>\n<|im_start|>assistant\n"
        )
    assert len({tuple(it["token_ids"]) for it in answered}) == len(answered), "every question has an answer of its own"
    # A token of the vocabulary: nothing breaks where it stands for nothing, and all the same nothing is answered.
    for parts, reason in (([slide_part(encoded)], "holds 2 slide placeholders for 1"), ([], "no slide came with it")):
        refused = vllm.chat([question("Why <|image_pad|>?", *parts)])
        assert (refused.status_code, reason in refused.json()["error"]["message"]) == (400, True), refused.text
    return answered


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
    request = json.dumps({"folder": str(model.llm_folder), "cases": cases})
    run = subprocess.run([vllm_python, REFERENCE], input=request, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return list(json.loads(run.stdout))
