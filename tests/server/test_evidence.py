"""Evidence of answers over the API: a worker's rows, scores of a vLLM that is played, and what is refused."""

import asyncio
import base64
import dataclasses
import io
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from api_parts import client_of, encode_job, events_of, problem_of, running_worker, stored_slide, until
from drawn_regions import QUADRANTS, FakeLeaveOut, FakeMake, evidence_job, region_job, slide_with_tiles
from fakes import FakeEncode, FakeVllm, slide_parts, sse, token_chunk, usage
from fastapi import FastAPI

from encoders.errors import EncoderOverflowed
from model_store.installed import InstalledModel
from model_store.manifest import Abilities
from server.api.parts import Parts
from server.encoding.encode_worker import DerivedWork
from server.slides.slide_record import SlideRecord

ANSWER_TOKENS, PROMPT_TOKENS = 3, 50
# Of 10 × 10 tiles: those of two cells of 8 × 8 in the lower right.
IMPORTANT = frozenset({77, 78, 87, 88})


class ScoringVllm:
    """Gives answers that are likelier the larger the first number of the slide's rows is."""

    def __init__(self, fake: FakeVllm, answer: str = "In the lower right.") -> None:
        self.answer, self.scored = answer, 0
        self._fake = fake
        fake.script = self.reply

    def reply(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        [part] = slide_parts(body)
        rows = np.load(io.BytesIO(base64.b64decode(part["image_embeds"])))
        likely = 0.01 + 0.98 * float(rows[0, 0])
        counts = usage(len(rows), prompt_tokens=PROMPT_TOKENS)
        if body.get("stream"):
            return self._fake.stream(sse(token_chunk(self.answer), {"choices": [], "usage": counts}))
        self.scored += 1
        if body.get("prompt_logprobs") == 0:
            assert body["messages"][-1] == {"role": "assistant", "content": self.answer}
            assert body["vllm_xargs"] == {"score_answer": 1}
            length = PROMPT_TOKENS + ANSWER_TOKENS
            tokens: list[Any] = [None, *({"5": {"logprob": -0.1}} for _ in range(length - 1))]
            tokens[-1] = {"7": {"logprob": math.log(likely)}}
            return httpx.Response(200, json={"prompt_logprobs": tokens, "usage": counts | {"prompt_tokens": length}})
        first = [{"token": "\u2581Yes", "logprob": math.log(likely)}, {"token": "No", "logprob": math.log(1 - likely)}]
        choice = {"logprobs": {"content": [{"top_logprobs": first}]}}
        return httpx.Response(200, json={"choices": [choice], "usage": counts})


@pytest.fixture
async def slide(parts: Parts) -> SlideRecord:
    record = await slide_with_tiles(parts)
    return record


@asynccontextmanager
async def worker(parts: Parts, make: FakeLeaveOut) -> AsyncIterator[None]:
    work = [
        DerivedWork(parts.region_jobs, region_job(parts, FakeMake()).run),
        DerivedWork(parts.evidence_jobs, evidence_job(parts, make).run),
    ]
    async with running_worker(parts.jobs, encode_job(parts, FakeEncode("unused")).run, ("",), *work):
        yield


async def asked(client: httpx.AsyncClient, slide: SlideRecord, **more: Any) -> dict[str, Any]:
    body = {"question": "Where is the necrosis?", "stream": False, **more}
    done = dict((await client.post(f"/v1/slides/{slide.id}/questions", json=body)).raise_for_status().json())
    return {"conversation_id": done["conversation_id"], "turn": done["turn"]}


async def evidence(client: httpx.AsyncClient, slide: SlideRecord, of: dict[str, Any], **more: Any) -> httpx.Response:
    return await client.post(f"/v1/slides/{slide.id}/evidence", json={"stream": False, **of, **more})


async def test_the_cells_that_an_answer_rests_on_stand_out(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    scoring = ScoringVllm(vllm)
    async with worker(parts, FakeLeaveOut(IMPORTANT)):
        events = events_of(await evidence(client, slide, await asked(client, slide), stream=True))
    names = [name for name, _ in events]
    begun, done = events[0][1], events[-1][1]

    assert (names[0], names[-1]) == ("evidence", "done")
    assert names.count("cell") == len(begun["cells"]) == len(done["cells"]) == 64
    assert sum(cell["tiles"] for cell in begun["cells"]) == 100
    assert done["stands_out"] is True
    strongest = next(cell for cell in done["cells"] if cell["cell"] == done["strongest"][0])
    assert min(strongest["x"], strongest["y"]) >= 500
    assert strongest["drop"] > done["threshold"] > strongest["control"]
    assert all(cell["stands_out"] == (cell["cell"] in done["strongest"]) for cell in done["cells"])
    assert done["costs"]["requests"] == scoring.scored == 2 + 2 * 64
    assert (done["answer"], done["scope"], done["choices"]) == ("In the lower right.", {"kind": "slide"}, [])


async def test_nothing_stands_out_where_the_answer_rests_on_all_of_the_tissue(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    async with worker(parts, FakeLeaveOut(frozenset(range(100)))):
        done = (await evidence(client, slide, await asked(client, slide))).json()

    assert (done["stands_out"], done["strongest"], done["finding"]) == (False, [], "No part stands out.")
    assert max(cell["drop"] for cell in done["cells"]) < done["threshold"]


async def test_of_a_closed_answer_each_choice_is_followed(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm, "Yes.")
    async with worker(parts, FakeLeaveOut(IMPORTANT)):
        done = (await evidence(client, slide, await asked(client, slide))).json()
    top = next(cell for cell in done["cells"] if cell["cell"] == done["strongest"][0])

    assert [it["choice"] for it in done["choices"]] == ["Yes", "No"]
    assert sum(it["probability"] for it in done["choices"]) == pytest.approx(1, abs=1e-3)
    yes, no = top["choices"]
    assert yes["without"] < yes["probability"]
    assert no["without"] > no["probability"]


async def test_a_cell_is_divided_again_and_a_regions_answer_has_evidence_in_the_region_alone(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    async with worker(parts, FakeLeaveOut(IMPORTANT)):
        about_region = await asked(client, slide, region=QUADRANTS[3])
        done = (await evidence(client, slide, about_region)).json()
        finer = (await evidence(client, slide, about_region, cell="r7c7")).json()
        unknown = await evidence(client, slide, about_region, cell="r9c9")

    assert done["scope"]["kind"] == "region"
    assert sum(cell["tiles"] for cell in done["cells"]) == 25
    assert min(cell["x"] for cell in done["cells"]) >= 500
    assert (finer["parent"], finer["rows"]) == ("r7c7", 4)
    assert all(cell["cell"].startswith("r7c7_") for cell in finer["cells"])
    assert problem_of(unknown, 422) == "unknown_cell"


async def test_the_prompt_that_was_answered_is_the_one_that_is_scored(
    make_app: Callable[..., FastAPI], demo_model: InstalledModel, vllm: FakeVllm
) -> None:
    """Of a long conversation: a turn beyond the training, and one about a region, were not given."""
    manifest = demo_model.manifest.model_copy(update={"abilities": Abilities(trained_turns=2)})
    app = make_app(models=(dataclasses.replace(demo_model, manifest=manifest),))
    parts = app.state.parts
    slide = await slide_with_tiles(parts)
    ScoringVllm(vllm)
    async with client_of(app) as client, worker(parts, FakeLeaveOut(IMPORTANT)):
        of = await asked(client, slide)
        more = {"conversation_id": of["conversation_id"]}
        await asked(client, slide, region=QUADRANTS[3], **more)
        await asked(client, slide, question="Which grade?", region="slide", **more)
        of = await asked(client, slide, question="And why?", region="slide", **more)
        answered = vllm.bodies[-1]["messages"]
        done = (await evidence(client, slide, of)).json()
    scored = [it["messages"] for it in vllm.bodies if it.get("prompt_logprobs") == 0]

    assert len(done["cells"]) == 64
    given, *all_scored = [[_text_of(message) for message in messages] for messages in (answered, *scored)]
    assert given == ["Which grade?", "In the lower right.", "And why?"]
    assert all(texts == [*given, "In the lower right."] for texts in all_scored)


def _text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


async def test_rows_are_made_once_and_go_with_the_slide(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    make = FakeLeaveOut(IMPORTANT)
    async with worker(parts, make):
        of = await asked(client, slide)
        first = (await evidence(client, slide, of)).json()
        made = make.parts
    again = (await evidence(client, slide, of)).json()  # no worker is needed any more
    used = (await client.get("/v1/usage")).json()["stored_bytes"]
    assert (again["cells"], make.parts) == (first["cells"], made)
    assert await parts.store.stored_bytes(slide.paths.evidence) > 0

    assert (await client.delete(f"/v1/slides/{slide.id}")).status_code == 204

    assert await parts.store.stored_bytes(slide.paths.folder) == 0
    assert (await client.get("/v1/usage")).json()["stored_bytes"] < used


async def test_a_slide_keeps_a_bounded_number_of_sets(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    async with worker(parts, FakeLeaveOut(IMPORTANT)):
        of = await asked(client, slide)
        for cell in ("r0c0", "r1c1", "r2c2", "r3c3", "r4c4", "r5c5"):
            assert (await evidence(client, slide, of, cell=cell)).is_success
        names = {name.partition(".")[0] for name in await parts.store.objects(slide.paths.evidence)}

    assert len(names) == parts.settings.max_evidence_per_slide


async def test_what_cannot_be_made_says_so_and_is_tried_again_when_asked_for_again(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    make = FakeLeaveOut(IMPORTANT, error=EncoderOverflowed("too large"))
    async with worker(parts, make):
        of = await asked(client, slide)
        failed = await evidence(client, slide, of)
        make.error = None
        assert (await evidence(client, slide, of)).is_success

    assert problem_of(failed, 409) == "evidence_unavailable"


async def test_damaged_rows_are_made_again(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    async with worker(parts, FakeLeaveOut(IMPORTANT)):
        of = await asked(client, slide)
        first = (await evidence(client, slide, of)).json()
        [name] = {name.partition(".")[0] for name in await parts.store.objects(slide.paths.evidence)}
        await parts.store.put(slide.paths.evidence_part(name, 1), b"damaged")
        refused = await evidence(client, slide, of)
        again = (await evidence(client, slide, of)).json()

    assert problem_of(refused, 409) == "region_not_ready"
    assert again["cells"] == first["cells"]


async def test_an_answer_that_is_not_there_has_no_evidence(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    other = await slide_with_tiles(parts, "other")
    few = await stored_slide(parts, "few", ready=True)
    of = await asked(client, slide)

    assert problem_of(await evidence(client, slide, of | {"turn": 2}), 404) == "not_found"
    assert problem_of(await evidence(client, other, of), 409) == "wrong_conversation"
    assert problem_of(await evidence(client, slide, of | {"conversation_id": "conv_" + "a" * 22}), 404) == "not_found"
    assert problem_of(await evidence(client, few, await asked(client, few)), 409) == "evidence_unavailable"


async def test_no_more_than_its_share_of_evidence_is_made_for_a_tenant(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    of = await asked(client, slide)
    most = parts.settings.max_concurrent_evidence
    waiting = [asyncio.create_task(evidence(client, slide, of)) for _ in range(most)]  # nobody makes the rows
    try:
        await until(lambda: sum(task.done() for task in waiting) > 0)
        refused = next(task.result() for task in waiting if task.done())
        assert problem_of(refused, 429) == "overloaded"
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_language_model_that_goes_away_ends_the_stream_with_an_error(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    ScoringVllm(vllm)
    of = await asked(client, slide)
    vllm.script = lambda _: httpx.Response(200, json={"choices": []})
    events = events_of(await evidence(client, slide, of, stream=True))

    assert [name for name, _ in events] == ["evidence", "error"]
    assert events[-1][1]["code"] == "language_model_failed"
