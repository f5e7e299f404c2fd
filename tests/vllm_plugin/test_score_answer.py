"""How likely an answer is: a real vLLM gives what plain transformers gives, and refuses to score anything else."""

from collections.abc import Callable
from typing import Any

import pytest
from vllm_requests import npy, question, slide_part, slide_tokens
from vllm_server import VllmServer

from model_store.installed import InstalledModel
from server.asking.answer_scores import FIRST_TOKEN, SCORE_ANSWER, read_first_token, read_scores

pytestmark = pytest.mark.vllm

TEXT = "Is there necrosis?"


def test_an_answer_has_the_likelihood_that_transformers_gives_it(
    vllm: VllmServer, demo: InstalledModel, plain_transformers: Callable[[dict[str, Any]], list[Any]]
) -> None:
    spec = demo.manifest.slide_stage
    slides = [npy(slide_tokens(count, spec.embed_dim, seed=count)) for count in (1, spec.slide_tokens)]
    asked = [[question(f"<image>\n{TEXT}", slide_part(slide))] for slide in slides]
    made = [vllm.chat(messages, return_token_ids=True, max_tokens=8).raise_for_status().json() for messages in asked]
    ids = [body["choices"][0]["token_ids"] for body in made]
    texts = [body["choices"][0]["message"]["content"].strip() for body in made]
    scored = [{"slide": slide, "question": TEXT, "token_ids": said} for slide, said in zip(slides, ids, strict=True)]
    expected = plain_transformers({"folder": str(demo.llm_folder), "scored": scored})

    for count, messages, text, tokens in zip((1, spec.slide_tokens), asked, texts, expected, strict=True):
        first = read_first_token(vllm.chat(messages, **FIRST_TOKEN).raise_for_status().content, count)
        answered = [*messages, {"role": "assistant", "content": text}]
        scores = read_scores(vllm.chat(answered, **SCORE_ANSWER).raise_for_status().content, count)
        again = read_scores(vllm.chat(answered, **SCORE_ANSWER).raise_for_status().content, count)

        assert scores.prompt_tokens - first.prompt_tokens == len(tokens)
        assert scores.logprobs[-len(tokens) :] == pytest.approx(tokens, abs=1e-4)
        assert scores.of_last(len(tokens)) == pytest.approx(sum(tokens), abs=1e-3)
        assert again == pytest.approx(scores) if isinstance(again, float) else again.logprobs == scores.logprobs
        assert sum(first.probabilities.values()) <= 1.001


def test_a_prompt_without_a_slide_whose_placeholder_lies_beyond_the_vocabulary_is_not_scored(
    vllm: VllmServer,
) -> None:
    refused = vllm.chat([question(f"<image>\n{TEXT}")], **SCORE_ANSWER | {"continue_final_message": False})

    assert refused.status_code == 400
    assert vllm.chat([question(TEXT)]).is_success, "the engine lives"


@pytest.mark.parametrize("asked", [{"prompt_logprobs": 1}, {"vllm_xargs": {"score_answer": 2}}])
def test_other_scores_of_a_prompt_are_refused(vllm: VllmServer, demo: InstalledModel, asked: dict[str, Any]) -> None:
    slide = slide_part(npy(slide_tokens(4, demo.manifest.slide_stage.embed_dim)))
    messages = [question(f"<image>\n{TEXT}", slide), {"role": "assistant", "content": "No."}]
    refused = vllm.chat(messages, **SCORE_ANSWER | asked)

    assert refused.status_code == 400
    assert "prompt_logprobs is not possible here" in refused.json()["error"]["message"]
