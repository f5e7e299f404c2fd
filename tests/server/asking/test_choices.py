"""Choices over the API: the likeliest is the answer, shares are those of whole choices, and what is refused."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson
import pytest
from api_parts import events_of, problem_of, stored_slide
from fakes import SLIDE_ROWS, FakeVllm, usage

from server.api.parts import Parts
from server.slides.slide_record import SlideRecord

PROMPT = tuple(range(100, 150))
Said = Mapping[str, Sequence[tuple[int, float]]]


class ChoosingVllm:
    """Knows choices as tokens, each with its probability behind those before it; the prompt has 50 tokens."""

    def __init__(self, fake: FakeVllm, said: Said) -> None:
        self.said = said
        fake.script = self.reply

    def reply(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        counts = usage(SLIDE_ROWS, prompt_tokens=len(PROMPT))
        if "prompt_logprobs" not in body:
            first = {"logprobs": {"content": [{"top_logprobs": [{"token": "Yes", "logprob": -0.1}]}]}}
            return httpx.Response(200, json={"choices": [first], "usage": counts})
        assert (body["vllm_xargs"], body["continue_final_message"]) == ({"score_answer": 1}, True)
        answer = body["messages"][-1]
        assert answer["role"] == "assistant"
        tokens = [(token, 0.5) for token in PROMPT[1:]] + list(self.said[answer["content"]])
        scores = [None, *({str(token): {"logprob": math.log(likely)}} for token, likely in tokens)]
        counts["prompt_tokens"] = len(scores)
        return httpx.Response(200, json={"prompt_logprobs": scores, "usage": counts})


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


async def ask(client: httpx.AsyncClient, slide: SlideRecord, choices: Any, **more: Any) -> httpx.Response:
    body = {"question": "Is there a tumour?", "choices": choices, "stream": False, **more}
    return await client.post(f"/v1/slides/{slide.id}/questions", json=body)


def shares(done: Mapping[str, Any]) -> dict[str, float]:
    assert math.fsum(it["probability"] for it in done["choices"]) == pytest.approx(1, abs=1e-12)
    return {it["text"]: it["probability"] for it in done["choices"]}


async def test_the_likeliest_choice_is_the_answer_and_the_turn(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    ChoosingVllm(vllm, {"Yes": [(1, 0.2)], "No": [(2, 0.6)]})
    done = (await ask(client, ready, ["Yes", "No"])).raise_for_status().json()

    assert done["answer"] == "No"
    assert shares(done) == pytest.approx({"Yes": 0.25, "No": 0.75})
    assert done["usage"] == {"prompt_tokens": 50, "slide_tokens": 32, "cached_tokens": 16, "completion_tokens": 1}
    assert done["warnings"] == []
    remembered = (await client.get(f"/v1/conversations/{done['conversation_id']}")).json()
    assert [turn["answer"] for turn in remembered["turns"]] == ["No"]


async def test_a_stream_has_the_choice_in_one_piece(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    ChoosingVllm(vllm, {"Yes": [(1, 0.2)], "No tumour": [(2, 0.6), (3, 0.5)]})
    events = events_of(await ask(client, ready, ["Yes", "No tumour"], stream=True))

    assert [name for name, _ in events] == ["notice", "token", "done"]
    assert events[1][1] == {"text": "No tumour"}
    assert shares(events[2][1]) == pytest.approx({"Yes": 0.4, "No tumour": 0.6})


async def test_a_choice_that_others_begin_with_means_the_answers_that_do_not_go_on_so(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    no = (2, 0.8)
    said: Said = {
        "No": [no],
        "No tumour": [no, (3, 0.75)],
        "No tumour cells": [no, (3, 0.75), (4, 0.5)],
        "Not seen": [(5, 0.2), (6, 1.0)],
    }
    ChoosingVllm(vllm, said)
    done = (await ask(client, ready, list(said))).json()

    assert shares(done) == pytest.approx({"No": 0.2, "No tumour": 0.3, "No tumour cells": 0.3, "Not seen": 0.2})


async def test_what_all_choices_begin_with_decides_nothing_but_whether_they_are_doubted(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    ChoosingVllm(vllm, {"Grade 1": [(7, 1e-9), (1, 0.3)], "Grade 2": [(7, 1e-9), (2, 0.6)]})
    events = events_of(await ask(client, ready, ["Grade 1", "Grade 2"], stream=True))

    assert shares(events[-1][1]) == pytest.approx({"Grade 1": 1 / 3, "Grade 2": 2 / 3})
    assert [it["code"] for it in events[0][1]["warnings"]] == ["choices_unlikely"], "before the answer"
    assert events[-1][1]["warnings"] == events[0][1]["warnings"]


async def test_choices_that_are_the_same_tokens_are_refused(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    ChoosingVllm(vllm, {"α": [(0, 0.2)], "b": [(1, 0.2)], "β": [(0, 0.2)]})
    refused = await ask(client, ready, ["α", "b", "β"])

    assert problem_of(refused, 422) == "invalid_request"
    assert "Choices 1 and 3 are the same" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ([], "choices"),
        (["Yes"], "choices"),
        ([f"choice {number}" for number in range(27)], "choices"),
        (["Yes", ""], "choices"),
        (["Yes", "x" * 201], "choices"),
        (["Yes", "No", "Yes"], "Choice 3 is there twice"),
        (["Yes", " No"], "Choice 2 is empty, has blanks around it"),
        (["Yes", "No\n"], "Choice 2 is empty, has blanks around it"),
        (["Yes", "a\tb"], "more than one line"),
        (["Yes", "No<|im_end|>"], "Choice 2 holds text"),
        (["<image>", "No"], "Choice 1 holds text"),
        (["Yes", "\x00"], "Choice 2 holds text"),
        (["Yes", 1], "choices"),
        ("Yes", "choices"),
    ],
)
async def test_choices_that_cannot_be_answers_are_refused(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, choices: Any, told: str
) -> None:
    refused = await ask(client, ready, choices)

    assert problem_of(refused, 422) == "invalid_request"
    assert told in refused.json()["detail"]
    assert not vllm.requests


@pytest.mark.parametrize("option", [{"temperature": 0}, {"seed": 1}, {"max_tokens": 5}])
async def test_how_to_generate_is_refused_beside_choices(
    client: httpx.AsyncClient, ready: SlideRecord, option: dict[str, Any]
) -> None:
    refused = await ask(client, ready, ["Yes", "No"], **option)

    assert problem_of(refused, 422) == "invalid_request"
    assert "leave out temperature" in refused.json()["detail"]


async def test_a_failure_of_one_choice_is_the_answers(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    playing = ChoosingVllm(vllm, {"Yes": [(1, 0.2)], "No": [(2, 0.6)]})

    def fails(request: httpx.Request) -> httpx.Response:
        said = orjson.loads(request.content)["messages"][-1]["content"]
        return httpx.Response(400, json={}) if said == "No" else playing.reply(request)

    vllm.script = fails
    assert problem_of(await ask(client, ready, ["Yes", "No"], stream=True), 502) == "language_model_failed"


async def test_as_many_choices_as_letters_are_each_scored_once(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    choices = [f"choice {number}" for number in range(26)]
    ChoosingVllm(vllm, {choice: [(number, 1 / 26)] for number, choice in enumerate(choices)})
    done = (await asyncio.wait_for(ask(client, ready, choices), 30)).json()

    assert set(shares(done)) == set(choices)
    assert len(vllm.requests) == 1 + 26
