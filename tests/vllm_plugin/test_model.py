"""vLLM with the plugin answers as plain transformers does, token for token, whatever the number of slide tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from vllm_requests import Messages, npy, question, slide_part, slide_tokens
from vllm_server import VllmServer

from model_store.installed import InstalledModel

pytestmark = pytest.mark.vllm

QUESTIONS = ["What is the histological type?", "Which grade, and why?", "Is there necrosis?"]
MAX_TOKENS = 24


def converse(vllm: VllmServer, conversation: dict[str, Any]) -> list[dict[str, Any]]:
    """Asks the questions in turn, as one growing conversation; the slide goes along every time."""
    messages: Messages = []
    turns = []
    for number, text in enumerate(conversation["questions"]):
        parts = [slide_part(conversation["slide"])] if number == 0 else []
        messages.append(question(text if number else f"<image> \n{text}", *parts))
        body = vllm.chat(messages, max_tokens=MAX_TOKENS, return_token_ids=True).raise_for_status().json()
        turns.append(body)
        messages.append({"role": "assistant", "content": body["choices"][0]["message"]["content"].strip()})
    return turns


def as_reference(body: dict[str, Any]) -> dict[str, Any]:
    """The same three facts that the reference states of an answer."""
    choice = body["choices"][0]
    return {
        "prompt_tokens": body["usage"]["prompt_tokens"],
        "token_ids": choice["token_ids"],
        "text": choice["message"]["content"],
    }


def test_three_turns_equal_transformers_for_one_some_and_the_most_slide_tokens(
    vllm: VllmServer, demo: InstalledModel, reference: Callable[[list[dict[str, Any]]], list[list[dict[str, Any]]]]
) -> None:
    spec = demo.manifest.slide_stage
    counts = (1, 7, spec.slide_tokens)
    conversations = [
        {
            "slide": npy(slide_tokens(count, spec.embed_dim, seed=count)),
            "questions": QUESTIONS,
            "max_tokens": MAX_TOKENS,
        }
        for count in counts
    ]

    expected = reference(conversations)

    for count, conversation, turns in zip(counts, conversations, expected, strict=True):
        answers = converse(vllm, conversation)
        assert [as_reference(body) for body in answers] == turns
        details = [body["usage"]["prompt_tokens_details"] for body in answers]
        assert [detail["multimodal_tokens"] for detail in details] == [{"image": count}] * len(QUESTIONS)
        assert details[-1]["cached_tokens"] > count, "the last turn reuses the slide and the earlier turns"


def test_another_slide_gets_another_answer(vllm: VllmServer, demo: InstalledModel) -> None:
    spec = demo.manifest.slide_stage
    slides = [npy(slide_tokens(spec.slide_tokens, spec.embed_dim, seed)) for seed in (1, 2)]
    texts = [
        converse(vllm, {"slide": slide, "questions": QUESTIONS[:1]})[0]["choices"][0]["message"]["content"]
        for slide in slides
    ]

    assert texts[0] != texts[1]


def test_the_placeholder_may_be_left_to_the_chat_template(vllm: VllmServer, demo: InstalledModel) -> None:
    spec = demo.manifest.slide_stage
    part = slide_part(npy(slide_tokens(spec.slide_tokens, spec.embed_dim)))

    placed = vllm.chat([question(f"<image> \n{QUESTIONS[0]}", part)], return_token_ids=True).json()
    left = vllm.chat([question(QUESTIONS[0], part)], return_token_ids=True).json()

    assert left["prompt_token_ids"] == placed["prompt_token_ids"]
    assert as_reference(left) == as_reference(placed)


def test_a_slide_that_vllm_has_cached_need_not_be_sent_again(vllm: VllmServer, demo: InstalledModel) -> None:
    spec = demo.manifest.slide_stage
    sent = slide_part(npy(slide_tokens(5, spec.embed_dim)), uuid="a" * 64)
    text = f"<image> \n{QUESTIONS[0]}"

    first = vllm.chat([question(text, sent)]).raise_for_status().json()
    again = vllm.chat([question(text, slide_part(None, uuid="a" * 64))]).raise_for_status().json()

    assert again["choices"][0]["message"]["content"] == first["choices"][0]["message"]["content"]
    assert again["usage"]["prompt_tokens_details"]["multimodal_tokens"] == {"image": 5}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_stored_halves_and_floats_of_the_same_values_answer_alike(
    vllm: VllmServer, demo: InstalledModel, dtype: type[np.floating[Any]]
) -> None:
    slide = slide_tokens(3, demo.manifest.slide_stage.embed_dim)
    expected = converse(vllm, {"slide": npy(slide), "questions": QUESTIONS[:1]})

    answered = converse(vllm, {"slide": npy(slide.astype(dtype)), "questions": QUESTIONS[:1]})

    assert as_reference(answered[0]) == as_reference(expected[0])
