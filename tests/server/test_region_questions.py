"""Questions about regions, in both dialects: whose embedding is sent, what a turn is about, what is not mixed."""

import base64
import dataclasses
import io
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from api_parts import client_of, encode_job, events_of, problem_of, running_worker
from drawn_regions import QUADRANTS, FakeMake, box, region_job, slide_with_tiles
from fakes import FakeEncode, FakeVllm, slide_parts
from fastapi import FastAPI
from redis.asyncio import Redis
from untrained_model import changed_manifest, untrained_model

from encoders.errors import EncoderOverflowed, UnusableRegion
from encoders.regions.outline import Outline
from model_store.installed import InstalledModel
from server.api.parts import Parts
from server.encoding.encode_worker import DerivedWork
from server.settings import Settings
from server.slides.slide_record import SlideRecord


@pytest.fixture
async def slide(parts: Parts) -> SlideRecord:
    return await slide_with_tiles(parts)


@asynccontextmanager
async def worker(parts: Parts, make: FakeMake | None = None) -> AsyncIterator[None]:
    job = region_job(parts, make or FakeMake())
    makes = {model: job.makes[""] for model in ("", *parts.slides.other_models)}
    job = dataclasses.replace(job, makes=makes)
    work = DerivedWork(parts.region_jobs, job.run)
    async with running_worker(parts.jobs, encode_job(parts, FakeEncode("unused")).run, tuple(makes), work):
        yield


async def ask(client: httpx.AsyncClient, slide: SlideRecord, **more: Any) -> httpx.Response:
    body = {"question": "Is there necrosis?", "stream": False, **more}
    return await client.post(f"/v1/slides/{slide.id}/questions", json=body)


async def chat(client: httpx.AsyncClient, part: Any, *, stream: bool = False, earlier: Any = ()) -> httpx.Response:
    content = [part, {"type": "text", "text": "Is there necrosis?"}]
    body = {"model": "demo", "stream": stream, "messages": [*earlier, {"role": "user", "content": content}]}
    return await client.post("/v1/chat/completions", json=body)


async def drawn(client: httpx.AsyncClient, slide: SlideRecord, shape: Any) -> dict[str, Any]:
    return dict((await client.post(f"/v1/slides/{slide.id}/regions", json=shape)).json())


def tiles_sent(body: dict[str, Any]) -> float:
    """Of how many tiles the rows are that vLLM got; `FakeMake` writes that into them, and a slide's are 0.5."""
    [part] = slide_parts(body)
    return float(np.load(io.BytesIO(base64.b64decode(part["image_embeds"])))[0, 0]) * 256


def said(body: dict[str, Any]) -> int:
    return len(body["messages"])


async def test_a_question_draws_its_region_and_waits_for_it(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    async with worker(parts):
        done = (await ask(client, slide, region=QUADRANTS[1])).json()
    region = await drawn(client, slide, QUADRANTS[1])
    again = (await ask(client, slide, region=region["region_id"])).json()  # no worker is needed any more

    scope = {"kind": "region", "region_id": region["region_id"], "tiles": 25, "area_mm2": 0.0625}
    assert (done["scope"], again["scope"]) == (scope, scope)
    assert [tiles_sent(body) for body in vllm.bodies] == [25, 25]
    assert [it["code"] for it in done["warnings"]] == ["region_not_evaluated"]


async def test_each_region_has_a_prefix_cache_of_its_own(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    async with worker(parts):
        for region in (*QUADRANTS[:2], "slide", *QUADRANTS[:2], "slide"):
            assert (await ask(client, slide, region=region)).is_success
    uuids = [slide_parts(body)[0]["uuid"] for body in vllm.bodies]

    assert len(set(uuids[:3])) == 3
    assert uuids[3:] == uuids[:3]


async def test_the_stream_says_first_what_it_is_about(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    async with worker(parts):
        events = events_of(await ask(client, slide, region=QUADRANTS[0], stream=True))

    assert events[0][0] == "notice"
    assert events[0][1]["scope"]["tiles"] == 25
    assert events[-1][1]["scope"] == events[0][1]["scope"]


async def test_a_follow_up_keeps_the_scope_until_it_is_changed(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    async with worker(parts):
        first = (await ask(client, slide, region=QUADRANTS[0])).json()
        goes_on = {"conversation_id": first["conversation_id"]}
        kept = (await ask(client, slide, **goes_on)).json()
        whole = (await ask(client, slide, region="slide", **goes_on)).json()
        still_whole = (await ask(client, slide, **goes_on)).json()
        back = (await ask(client, slide, region=first["scope"]["region_id"], **goes_on)).json()
    turns = (await client.get(f"/v1/conversations/{first['conversation_id']}")).json()["turns"]

    answers = [first, kept, whole, still_whole, back]
    assert [it["scope"]["kind"] for it in answers] == ["region", "region", "slide", "slide", "region"]
    assert [it["scope"] for it in turns] == [it["scope"] for it in answers]
    # Turns about something else are not sent, and that is said.
    assert [said(body) for body in vllm.bodies] == [1, 3, 1, 3, 5]
    assert [tiles_sent(body) for body in vllm.bodies] == [25, 25, 128, 128, 25]
    codes = [[doubt["code"] for doubt in it["warnings"]] for it in answers]
    assert codes == [
        ["region_not_evaluated"],
        ["region_not_evaluated"],
        ["turns_of_another_scope"],
        ["turns_of_another_scope"],
        ["region_not_evaluated", "turns_of_another_scope"],
    ]
    assert "(2) are about another part" in answers[2]["warnings"][0]["detail"]


async def test_turns_of_an_older_release_are_about_the_slide(
    client: httpx.AsyncClient, slide: SlideRecord, redis: Redis, vllm: FakeVllm
) -> None:
    first = (await ask(client, slide)).json()
    key = f"eyepiece:{{default}}:conversation:{first['conversation_id']}"
    turn = (await redis.lindex(key, 1)).decode()
    await redis.lset(key, 1, turn.replace('"scope":{"kind":"slide"},', ""))

    assert "scope" not in (await redis.lindex(key, 1)).decode()
    assert (await ask(client, slide, conversation_id=first["conversation_id"])).json()["scope"] == {"kind": "slide"}
    assert said(vllm.bodies[-1]) == 3


async def test_chats_name_a_region_in_each_way_they_name_a_slide(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, vllm: FakeVllm
) -> None:
    region_id = (await drawn(client, slide, QUADRANTS[2]))["region_id"]
    parts_of_chats = [
        {"type": "slide", "slide": {"id": slide.id, "region": region_id}},
        {"type": "slide", "slide": {"id": slide.id, "region": QUADRANTS[2]}},
        {"type": "image_url", "image_url": {"url": f"slide:{slide.id}#{region_id}"}},
        {"type": "image_url", "image_url": {"url": f"https://slides.invalid/{slide.id}#{region_id}"}},
    ]
    async with worker(parts):
        answers = [(await chat(client, part)).json() for part in parts_of_chats]
        streamed = await chat(client, parts_of_chats[0], stream=True)
    whole = (await chat(client, {"type": "slide", "slide": {"id": slide.id, "region": "slide"}})).json()

    assert {it["scope"]["region_id"] for it in answers} == {region_id}
    assert [tiles_sent(body) for body in vllm.bodies] == [25] * 5 + [128]
    assert (whole["scope"], whole["warnings"]) == ({"kind": "slide"}, [])
    assert [it["code"] for it in answers[0]["warnings"]] == ["region_not_evaluated"]
    assert f'"region_id":"{region_id}"' in streamed.text.split("\n\n")[0]


async def test_outlines_are_checked_beside_the_event_loop(
    client: httpx.AsyncClient, slide: SlideRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand corners take tens of milliseconds."""
    threads: list[threading.Thread] = []

    def refused(corners: Any) -> Any:
        threads.append(threading.current_thread())
        raise UnusableRegion("It is no region.")

    monkeypatch.setattr(Outline, "of", refused)
    shape = {"polygon": [[0, 0], [500, 500], [500, 0]]}
    for_all = [
        await client.post(f"/v1/slides/{slide.id}/regions", json=shape),
        await ask(client, slide, region=shape),
        await chat(client, {"type": "slide", "slide": {"id": slide.id, "region": shape}}),
    ]

    assert [it.status_code for it in for_all] == [422] * 3
    assert len(threads) == 3
    assert threading.current_thread() not in threads


async def test_a_chat_about_several_parts_of_a_slide_is_refused(client: httpx.AsyncClient, slide: SlideRecord) -> None:
    earlier = [
        {"role": "user", "content": [{"type": "slide", "slide": {"id": slide.id}}, {"type": "text", "text": "Why?"}]},
        {"role": "assistant", "content": "So."},
    ]
    refused = await chat(client, {"type": "slide", "slide": {"id": slide.id, "region": QUADRANTS[0]}}, earlier=earlier)

    assert refused.status_code == 422
    assert "several parts of the slide" in refused.json()["error"]["message"]


@pytest.mark.parametrize("beside", [{"slide": {"regions": "slide"}}, {"region": "slide"}])
async def test_a_region_that_a_chat_names_in_the_wrong_place_is_not_taken_for_the_whole_slide(
    client: httpx.AsyncClient, slide: SlideRecord, vllm: FakeVllm, beside: dict[str, Any]
) -> None:
    refused = await chat(client, {"type": "slide", **beside, "slide": {"id": slide.id, **beside.get("slide", {})}})

    assert refused.status_code == 422
    assert "region" in refused.json()["error"]["message"]
    assert vllm.bodies == []


async def test_what_is_no_region_is_refused_before_anything_is_asked(
    client: httpx.AsyncClient, slide: SlideRecord, vllm: FakeVllm
) -> None:
    unknown = await ask(client, slide, region="reg_" + "0" * 32)
    other = await ask(client, slide, region="whole")
    small = await ask(client, slide, region=box(0, 0, 200, 200))
    crossed = await ask(client, slide, region={"polygon": [[0, 0], [500, 500], [500, 0], [0, 500]]})
    shapeless = await ask(client, slide, region={"circle": 5})

    assert [problem_of(it, 404) for it in (unknown, other)] == ["not_found"] * 2
    assert [problem_of(it, 422) for it in (small, crossed, shapeless)] == [
        "region_too_small",
        "unusable_region",
        "invalid_request",
    ]
    assert vllm.bodies == []


async def test_a_region_that_is_not_made_in_time_is_said_to_be_coming(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(region_wait_s=0)
    slide = await slide_with_tiles(app.state.parts)
    async with client_of(app) as client:
        refused = await ask(client, slide, region=QUADRANTS[0])
        in_chat = await chat(client, {"type": "slide", "slide": {"id": slide.id, "region": QUADRANTS[0]}})

    assert problem_of(refused, 409) == "region_not_ready"
    assert refused.headers["Retry-After"] == "1"
    assert in_chat.json()["error"]["code"] == "region_not_ready"


async def test_a_region_that_cannot_be_made_says_why(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    async with worker(parts, FakeMake(error=EncoderOverflowed("The rows are beyond the range."))):
        refused = await ask(client, slide, region=QUADRANTS[0])

    assert problem_of(refused, 409) == "region_failed"
    assert "The rows are beyond the range." in refused.json()["detail"]


async def test_a_question_that_draws_a_failed_region_again_has_it_tried_again(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    async with worker(parts, FakeMake(error=EncoderOverflowed("The rows are beyond the range."))):
        refused = await ask(client, slide, region=QUADRANTS[0])
    async with worker(parts):
        again = await ask(client, slide, region=QUADRANTS[0])

    assert problem_of(refused, 409) == "region_failed"
    assert again.json()["scope"]["tiles"] == 25


async def test_a_damaged_embedding_of_a_region_is_made_again(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, redis: Redis
) -> None:
    make = FakeMake()
    async with worker(parts, make):
        region_id = (await ask(client, slide, region=QUADRANTS[0])).json()["scope"]["region_id"]
        await redis.delete(*[key async for key in redis.scan_iter("*embedding*")])
        await parts.store.put(slide.paths.region_embedding(region_id), b"nonsense")

        await forgotten_in_memory(client, parts, slide, region_id)
        assert (await ask(client, slide, region=region_id)).is_success
    assert make.calls == 2


async def forgotten_in_memory(client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, region_id: str) -> None:
    """The API has this region's embedding for one more answer, and hears with it that Redis has it no more."""
    assert (await ask(client, slide, region=region_id)).is_success
    await parts.models.named(None).asked_slides.settled()


async def test_another_slides_or_regions_embedding_is_not_taken_for_it(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, redis: Redis
) -> None:
    make = FakeMake()
    async with worker(parts, make):
        ids = [(await ask(client, slide, region=shape)).json()["scope"]["region_id"] for shape in QUADRANTS[:2]]
        for key in [key async for key in redis.scan_iter("*embedding*")]:
            await redis.delete(key)
        content = await parts.store.get(slide.paths.region_embedding(ids[1]))
        assert content is not None
        await parts.store.put(slide.paths.region_embedding(ids[0]), content)

        await forgotten_in_memory(client, parts, slide, ids[0])
        assert (await ask(client, slide, region=ids[0])).is_success
    assert make.calls == 3


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    """A second model, with an encoder of its own."""
    text = changed_manifest(('name = "demo"', 'name = "tiny"'))
    return untrained_model(tmp_path_factory.mktemp("tiny"), seed=1, text=text)


async def test_another_model_is_asked_about_the_same_outline(
    make_app: Callable[..., FastAPI],
    settings: Settings,
    demo_model: InstalledModel,
    tiny_model: InstalledModel,
    vllm: FakeVllm,
) -> None:
    tiny = FakeVllm("Tiny ", "words.")
    app = make_app(
        settings.model_copy(update={"models": "demo=http://demo.test,tiny=http://tiny.test"}),
        models=[demo_model, tiny_model],
        vllms={"demo": vllm, "tiny": tiny},
    )
    parts: Parts = app.state.parts
    slide = await slide_with_tiles(parts)
    for_tiny = parts.slides.seen_by(slide, "tiny")
    for key in ("embedding", "features"):
        content = await parts.store.get(getattr(slide.paths, key)(slide.encoder_id))
        assert content is not None
        await parts.store.put(getattr(slide.paths, key)(for_tiny.encoder_id), content)
    async with client_of(app) as client, worker(parts):
        first = (await ask(client, slide, region=QUADRANTS[0])).json()
        second = (await ask(client, slide, model="tiny", conversation_id=first["conversation_id"])).json()
        again = await client.post(f"/v1/slides/{slide.id}/regions", json={**QUADRANTS[0], "model": "tiny"})
        found = await client.get(again.headers["Location"])

    assert (found.status_code, found.json()) == (200, again.json())
    assert first["scope"]["region_id"] != second["scope"]["region_id"]
    assert second["scope"]["tiles"] == 25
    assert said(tiny.bodies[-1]) == 3  # the same outline: the turn before is about it
    assert [it["code"] for it in second["warnings"]] == ["region_not_evaluated"]
