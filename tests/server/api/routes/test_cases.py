"""Cases through the whole API: their slides, and a question to each of them."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_parts import client_of, events_of, problem_of, stored_slide
from fakes import FakeVllm, slide_parts
from fastapi import FastAPI

from server.admission.rate_limits import RateLimits
from server.api.parts import Parts
from server.slides.slide_record import SlideRecord
from server.uploads.slide_metadata import SlideMetadata

CASE = "S26-0815"


@pytest.fixture
async def slides(parts: Parts) -> list[SlideRecord]:
    """Three of a case, newest first: ready, waiting, ready; and one of another case."""
    about = {"metadata": SlideMetadata(case=CASE, stain="HE")}
    found = [await stored_slide(parts, name, ready=name != "b", **about) for name in "abc"]
    await stored_slide(parts, "d", ready=True, metadata=SlideMetadata(case="another"))
    return sorted(found, key=lambda it: (-it.created_at.timestamp(), it.id))


async def asked(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/cases/questions", json={"case": CASE, "question": "Is there a tumour?", **body})


async def test_a_case_has_its_slides(client: httpx.AsyncClient, slides: list[SlideRecord]) -> None:
    case = (await client.get("/v1/cases", params={"case": CASE.lower()})).json()

    assert (case["object"], case["case"], case["more"]) == ("case", CASE.lower(), False)
    assert [slide["id"] for slide in case["slides"]] == [slide.id for slide in slides]
    assert problem_of(await client.get("/v1/cases", params={"case": "none"}), 404) == "not_found"
    assert problem_of(await client.get("/v1/cases"), 422) == "invalid_request"


async def test_each_slide_answers_for_itself(
    client: httpx.AsyncClient, slides: list[SlideRecord], vllm: FakeVllm
) -> None:
    events = events_of(await asked(client))

    assert [name for name, _ in events if name != "token"] == [
        "case",
        *[name for it in slides for name in (["refused"] if it.filename == "b.svs" else ["notice", "answer"])],
        "done",
    ]
    assert [it["slide_id"] for it in events[0][1]["slides"]] == [it.id for it in slides]
    assert {it["stain"] for it in events[0][1]["slides"]} == {"HE"}
    done = events[-1][1]
    for slide, outcome in zip(slides, done["answers"], strict=True):
        assert outcome["slide_id"] == slide.id
        if slide.filename == "b.svs":
            assert (outcome["answer"], outcome["error"]["code"]) == (None, "slide_not_ready")
        else:
            assert (outcome["answer"]["answer"], outcome["error"]) == ("No tumour.", None)
            assert outcome["answer"]["slide_id"] == slide.id
    assert all("slide_id" in data for name, data in events[1:-1])
    assert [len(slide_parts(body)) for body in vllm.bodies] == [1, 1], "no model is given two slides"
    first, second = [it["answer"]["conversation_id"] for it in done["answers"] if it["answer"]]
    assert first != second
    assert (await client.get(f"/v1/conversations/{second}")).json()["slide_id"] in {it.id for it in slides}


async def test_without_a_stream_all_of_it_is_the_body(client: httpx.AsyncClient, slides: list[SlideRecord]) -> None:
    chosen = [slides[2].id, slides[0].id]

    told = (await asked(client, stream=False, slides=chosen, choices=None)).json()

    assert [it["slide_id"] for it in told["answers"]] == chosen
    assert [it["slide_id"] for it in told["slides"]] == chosen


async def test_what_no_slide_could_be_asked_is_refused_at_once(
    client: httpx.AsyncClient, slides: list[SlideRecord], vllm: FakeVllm, parts: Parts
) -> None:
    other = await stored_slide(parts, "e", ready=True)
    for body, code in (
        ({"case": "none"}, 404),
        ({"slides": [other.id]}, 422),
        ({"question": " \n"}, 422),
        ({"model": "none"}, 422),
        ({"choices": ["Yes", "No"], "seed": 1}, 422),
        ({"slides": []}, 422),
        ({"conversation_id": "x"}, 422),
    ):
        problem_of(await asked(client, **body), code)
    assert vllm.requests == []


async def test_a_question_that_is_too_long_for_one_is_for_all(
    client: httpx.AsyncClient, slides: list[SlideRecord], parts: Parts
) -> None:
    question = "x" * (parts.settings.max_question_chars + 1)

    assert problem_of(await asked(client, question=question), 413) == "question_too_long"


async def test_more_slides_than_may_be_asked_are_named(client: httpx.AsyncClient, parts: Parts) -> None:
    for number in range(51):
        await stored_slide(parts, str(number), metadata=SlideMetadata(case=CASE))

    assert problem_of(await asked(client), 422) == "invalid_request"


async def test_each_slide_takes_one_of_the_rate(
    make_app: Callable[..., FastAPI], slides: list[SlideRecord], vllm: FakeVllm
) -> None:
    async with client_of(make_app(rate_limits=RateLimits(questions=1))) as client:
        told = (await asked(client, stream=False, slides=[it.id for it in slides if it.filename != "b.svs"])).json()

    assert [it["error"] and it["error"]["code"] for it in told["answers"]] == [None, "rate_limited"]
    assert len(vllm.requests) == 1
