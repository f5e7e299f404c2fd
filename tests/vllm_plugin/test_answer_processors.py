"""Repetition penalty and ban of n-grams are transformers', for requests in flight together, and only when asked for.

The published evaluation generates from embeddings, so transformers looks at the answer alone: the reference does too.
"""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from vllm_requests import npy, question, slide_part, slide_tokens
from vllm_server import VllmServer

from model_store.installed import InstalledModel

pytestmark = pytest.mark.vllm

CHECKS = Path(__file__).parent / "check_answer_processors.py"
SIZES = (None, 1, 2, 3, 4, None, None, 3)
PENALTIES = (None, None, 1.3, 1.15, 1.2, 1.15, 2, None)
# Lengths differ, so that requests leave the batch while others stay.
LENGTHS = (48, 20, 96, 64, 80, 16, 32, 120)
# The prompt holds its own n-grams again and again.
TEXT = "Is there tumour, is there tumour, is there tumour, is there tumour?"


def test_both_processors_equal_transformers_in_batches_that_change(vllm_python: Path, tmp_path: Path) -> None:
    run = subprocess.run([vllm_python, CHECKS], cwd=tmp_path, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr


def options(size: int | None, penalty: float | None) -> dict[str, Any]:
    """transformers' names."""
    named = {"no_repeat_ngram_size": size, "repetition_penalty": penalty}
    return {name: value for name, value in named.items() if value is not None}


def repeats(tokens: list[int], size: int) -> bool:
    """Whether some n-gram stands in the tokens twice."""
    grams = [tuple(tokens[start : start + size]) for start in range(len(tokens) + 1 - size)]
    return len(set(grams)) < len(grams)


def test_answers_in_flight_together_equal_transformers_for_every_size_and_penalty(
    vllm: VllmServer, demo: InstalledModel, reference: Callable[[list[dict[str, Any]]], list[list[dict[str, Any]]]]
) -> None:
    width = demo.manifest.slide_stage.embed_dim
    slides = [npy(slide_tokens(4 + number, width, seed=number)) for number in range(len(SIZES))]
    conversations = [
        {"slide": slide, "questions": [TEXT], "max_tokens": length, **options(size, penalty and float(penalty))}
        for slide, length, size, penalty in zip(slides, LENGTHS, SIZES, PENALTIES, strict=True)
    ]

    def answer(conversation: dict[str, Any], penalty: float | None) -> list[int]:
        size = conversation.get("no_repeat_ngram_size")
        named = {"no_repeat_ngram_size": size, "generated_repetition_penalty": penalty}
        asked = {"vllm_xargs": {name: value for name, value in named.items() if value}} if size or penalty else {}
        body = vllm.chat(
            [question(f"<image>\n{TEXT}", slide_part(conversation["slide"]))],
            max_tokens=conversation["max_tokens"],
            return_token_ids=True,
            **asked,
        )
        return list(body.raise_for_status().json()["choices"][0]["token_ids"])

    expected = [turns[0]["token_ids"] for turns in reference(conversations)]
    with ThreadPoolExecutor(len(SIZES)) as pool:
        answers = list(pool.map(answer, conversations, PENALTIES))

    assert answers == expected
    assert not any(repeats(tokens, size) for tokens, size in zip(answers, SIZES, strict=True) if size)
    assert repeats(answers[0], 2), "without it this model repeats itself, so that it had something to ban"


@pytest.mark.parametrize("wrong", [0, -1.5, "1.15", [1.15]])
def test_a_penalty_that_is_none_is_refused(vllm: VllmServer, wrong: Any) -> None:
    refused = vllm.chat([question("Why?")], vllm_xargs={"generated_repetition_penalty": wrong})

    assert refused.status_code == 400
    assert "generated_repetition_penalty must be a positive number" in refused.json()["error"]["message"]


@pytest.mark.parametrize("wrong", [0, -3, "3", 2.5, [3]])
def test_a_size_that_is_none_is_refused(vllm: VllmServer, wrong: Any) -> None:
    refused = vllm.chat([question("Why?")], vllm_xargs={"no_repeat_ngram_size": wrong})

    assert refused.status_code == 400
    assert "no_repeat_ngram_size must be a positive integer" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "asked",
    [{"repetition_penalty": 1.1}, {"frequency_penalty": 0.5}, {"presence_penalty": 0.5}, {"prompt_logprobs": 0}],
)
def test_what_would_reach_past_the_samplers_tables_is_refused(
    vllm: VllmServer, demo: InstalledModel, asked: dict[str, Any]
) -> None:
    slide = slide_part(npy(slide_tokens(4, demo.manifest.slide_stage.embed_dim)))
    refused = vllm.chat([question("<image>\nWhy?", slide)], **asked)

    assert refused.status_code == 400
    assert f"{next(iter(asked))} is not possible here" in refused.json()["error"]["message"]


def test_an_answer_ends_at_eos(vllm: VllmServer) -> None:
    eos = 2
    body = vllm.chat([question("Why?")], logit_bias={str(eos): 100}, return_token_ids=True).raise_for_status().json()

    choice = body["choices"][0]
    assert (choice["finish_reason"], choice["token_ids"], choice["message"]["content"]) == ("stop", [eos], "")
