"""Two models side by side: each answers for itself, a slide is encoded for each that is asked, and one may be away."""

import dataclasses
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_parts import client_of, encode_job, events_of, problem_of, running_worker, stored_slide, until, upload
from fakes import FakeEncode, FakeVllm, sample_embedding
from fastapi import FastAPI
from redis.asyncio import Redis
from untrained_model import changed_manifest, untrained_model

from encoders.embedding_file import to_bytes
from encoders.encoder_id import encoder_id
from encoders.errors import NoTissue
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from server.api.dependencies import slide_states
from server.api.parts import Parts
from server.app import build_app, build_reconciler
from server.encoding.encode_job import EncodeJob
from server.encoding.encode_worker import WorkerQueue
from server.encoding.worker_presence import announce_worker, withdraw_worker
from server.flow.follow_slide import FollowSlide
from server.settings import Settings
from server.slides.slide_record import SlideRecord

MODELS = "demo=http://demo.test,tiny=http://tiny.test"
THE_OTHER_WAY_ROUND = "tiny=http://tiny.test,demo=http://demo.test"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    """A second model, with weights and an encoder of its own."""
    text = changed_manifest(('name = "demo"', 'name = "tiny"'))
    return untrained_model(tmp_path_factory.mktemp("tiny"), seed=1, text=text)


@pytest.fixture
def vllms(vllm: FakeVllm) -> dict[str, FakeVllm]:
    return {"demo": vllm, "tiny": FakeVllm("Tiny ", "words.")}


@pytest.fixture
def app(
    make_app: Callable[..., FastAPI],
    demo_model: InstalledModel,
    tiny_model: InstalledModel,
    vllms: dict[str, FakeVllm],
) -> FastAPI:
    return make_app(models=[demo_model, tiny_model], vllms=vllms)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"models": MODELS})


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


def job_of(parts: Parts, **encodes: FakeEncode) -> EncodeJob:
    """The encode job of a worker with these encodes; `demo` is the default."""
    by_key = {"" if name == "demo" else name: encode for name, encode in encodes.items()}
    return dataclasses.replace(encode_job(parts, FakeEncode("unused")), encodes=by_key)


async def ask(client: httpx.AsyncClient, slide: str, **body: Any) -> httpx.Response:
    question = {"question": "Why?", "stream": False, **body}
    return await client.post(f"/v1/slides/{slide}/questions", json=question)


async def encodings(client: httpx.AsyncClient, slide: str) -> dict[str, str]:
    found = (await client.get(f"/v1/slides/{slide}")).json()["encodings"]
    return {it["model"]: it["status"] for it in found}


async def encoded_for_tiny(client: httpx.AsyncClient, parts: Parts, slide: str, tiny_model: InstalledModel) -> None:
    """Asked for, and encoded by a worker of that model alone."""
    await client.post(f"/v1/slides/{slide}/encode", json={"encoder": "tiny"})

    async def is_ready() -> bool:
        return (await encodings(client, slide)).get("tiny") == "ready"

    job = job_of(parts, tiny=FakeEncode(encoder_id(tiny_model)))
    worker = running_worker(parts.jobs, job.run, models=("tiny",))
    async with worker:
        await until(is_ready)


async def test_one_of_two_models_that_is_away_is_named_and_the_other_answers(
    app: FastAPI, client: httpx.AsyncClient, parts: Parts, vllms: dict[str, FakeVllm], ready: SlideRecord
) -> None:
    await app.state.readiness.look()
    vllms["tiny"].is_healthy = False
    for _ in range(2):
        await app.state.readiness.look()

    report = await client.get("/readyz")
    assert (report.status_code, report.json()["status"]) == (200, "ready")
    assert report.json()["models"] == {"demo": "ok", "tiny": "unavailable"}
    listed = (await client.get("/v1/models")).json()["data"]
    assert [(it["id"], it["state"]) for it in listed] == [("demo", "ok"), ("tiny", "unavailable")]
    assert (await ask(client, ready.id)).json()["answer"] == "No tumour."
    assert (await client.get("/readyz", params={"for": "questions"})).status_code == 200

    vllms["demo"].is_healthy = False
    for _ in range(2):
        await app.state.readiness.look()
    assert (await client.get("/readyz")).status_code == 503


async def test_a_question_is_answered_by_the_model_that_it_names(
    client: httpx.AsyncClient, parts: Parts, vllms: dict[str, FakeVllm], tiny_model: InstalledModel
) -> None:
    slide = await stored_slide(parts, ready=True, whole=True)
    await encoded_for_tiny(client, parts, slide.id, tiny_model)

    first = (await ask(client, slide.id)).json()
    second = (await ask(client, slide.id, model="tiny", conversation_id=first["conversation_id"])).json()
    content = [{"type": "slide", "slide": {"id": slide.id}}, {"type": "text", "text": "Why?"}]
    chat = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    third = (await client.post("/v1/chat/completions", json=chat)).json()

    assert [(it["model"], it["answer"]) for it in (first, second)] == [("demo", "No tumour."), ("tiny", "Tiny words.")]
    assert second["encoder_id"] == encoder_id(tiny_model) != first["encoder_id"]
    assert (third["model"], third["choices"][0]["message"]["content"]) == ("tiny", "Tiny words.")
    # The conversation went on: the other model was told what the first one had said.
    assert [it["content"] for it in vllms["tiny"].bodies[0]["messages"]][1:] == ["No tumour.", "Why?"]
    turns = (await client.get(f"/v1/conversations/{first['conversation_id']}")).json()["turns"]
    assert [turn["model"] for turn in turns] == ["demo", "tiny"]


async def test_a_model_that_is_not_served_is_refused_with_those_that_are(
    client: httpx.AsyncClient, ready: SlideRecord, vllms: dict[str, FakeVllm]
) -> None:
    asked = await ask(client, ready.id, model="gpt-4")
    encoded = await client.post(f"/v1/slides/{ready.id}/encode", json={"encoder": "gpt-4"})
    followed = await client.get(f"/v1/slides/{ready.id}/events", params={"model": "gpt-4"})
    chatted = await client.post(
        "/v1/chat/completions", json={"model": "gpt-4", "messages": [{"role": "user", "content": "x"}]}
    )

    for refused in (asked, encoded, followed):
        assert problem_of(refused, 422) == "invalid_request"
        assert "demo, tiny" in refused.json()["detail"]
    assert "demo, tiny" in chatted.json()["error"]["message"]
    assert not any(vllm.requests for vllm in vllms.values())


async def test_an_upload_is_encoded_for_the_default_model_and_a_question_begins_another(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes, demo_model: InstalledModel, tiny_model: InstalledModel
) -> None:
    slide = (await upload(client, sample_slide)).json()
    demo, tiny = FakeEncode(encoder_id(demo_model)), FakeEncode(encoder_id(tiny_model))

    async def are_ready() -> bool:
        return await encodings(client, slide["id"]) == {"demo": "ready", "tiny": "ready"}

    assert [it["model"] for it in slide["encodings"]] == ["demo"]
    refused = await ask(client, slide["id"], model="tiny")
    again = await ask(client, slide["id"], model="tiny")
    assert await encodings(client, slide["id"]) == {"demo": "queued", "tiny": "queued"}
    async with running_worker(parts.jobs, job_of(parts, demo=demo, tiny=tiny).run, models=("", "tiny")):
        await until(are_ready)
    found = (await client.get(f"/v1/slides/{slide['id']}")).json()
    events_path = f"/v1/slides/{slide['id']}/events"
    events = [events_of(await client.get(events_path, params=it)) for it in ({}, {"model": "tiny"})]
    features = await client.get(f"/v1/slides/{slide['id']}/features", params={"model": "tiny"})

    assert {problem_of(it, 409) for it in (refused, again)} == {"slide_not_ready"}
    assert refused.headers["Retry-After"]
    assert (demo.calls, tiny.calls) == (1, 1)
    assert (found["status"], found["encoder_id"]) == ("ready", encoder_id(demo_model))
    assert [it["encoder_id"] for it in found["encodings"]] == [encoder_id(demo_model), encoder_id(tiny_model)]
    assert [it["tile_count"] for it in found["encodings"]] == [7, 7]
    assert [it[-1][0] for it in events] == ["ready", "ready"]
    assert features.status_code == 200
    assert (await ask(client, slide["id"], model="tiny")).json()["answer"] == "Tiny words."


async def test_what_fails_for_one_model_is_said_of_that_alone(
    client: httpx.AsyncClient, parts: Parts, tiny_model: InstalledModel
) -> None:
    slide = await stored_slide(parts, ready=True, whole=True)
    await client.post(f"/v1/slides/{slide.id}/encode", json={"encoder": "tiny"})
    tiny = FakeEncode(encoder_id(tiny_model), error=NoTissue("There is no tissue."))

    async def has_failed() -> bool:
        return (await encodings(client, slide.id))["tiny"] == "failed"

    async with running_worker(parts.jobs, job_of(parts, tiny=tiny).run, models=("tiny",)):
        await until(has_failed)
    found = (await client.get(f"/v1/slides/{slide.id}")).json()

    assert (found["status"], found["error"]) == ("ready", None)
    assert found["encodings"][1]["error"]["code"] == "no_tissue"
    assert problem_of(await ask(client, slide.id, model="tiny"), 409) == "slide_failed"
    assert (await ask(client, slide.id)).status_code == 200
    assert (await client.get("/v1/slides", params={"status": "failed"})).json()["data"] == []


async def test_a_wanted_encode_is_found_again_when_its_job_is_lost(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord, redis: Redis, tiny_model: InstalledModel
) -> None:
    await ask(client, ready.id, model="tiny")
    await redis.flushall()
    tiny = parts.slides.seen_by(ready, "tiny")
    assert await parts.jobs.find(tiny) is None

    assert await build_reconciler(parts).round() == 1

    assert await parts.jobs.find(tiny) is not None
    assert await parts.jobs.find(ready) is None


async def test_who_follows_an_encode_for_one_model_is_not_told_how_another_one_went(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord, tiny_model: InstalledModel
) -> None:
    """As when events are lost with Redis: the outcome is taken from the record."""
    story = FollowSlide(parts.progress, parts.slides, slide_states(parts), lambda: False)
    await client.post(f"/v1/slides/{ready.id}/encode", json={"encoder": "tiny"})
    tiny = await parts.slides.require("default", ready.id, "tiny")

    assert await story._outcome(tiny) is None
    await parts.store.put(
        tiny.paths.embedding(tiny.encoder_id), to_bytes(sample_embedding(tiny.id, encoder_id(tiny_model)))
    )
    outcome = await story._outcome(tiny)
    assert outcome is not None
    assert outcome.name == "ready"


async def test_what_nobody_asked_to_encode_cannot_be_followed(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    """It would never end."""
    refused = await client.get(f"/v1/slides/{ready.id}/events", params={"model": "tiny"})

    assert problem_of(refused, 404) == "not_found"
    assert '{"encoder": "tiny"}' in refused.json()["detail"]


async def test_encoded_slides_stay_pending_for_no_model_that_has_not_been_asked(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord
) -> None:
    assert await build_reconciler(parts).round() == 0
    assert await parts.slides.index.entries("pending", "default", "", 9) == []
    assert await encodings(client, ready.id) == {"demo": "ready"}


async def test_another_default_keeps_what_both_models_have(
    client: httpx.AsyncClient,
    parts: Parts,
    settings: Settings,
    make_app: Callable[..., FastAPI],
    demo_model: InstalledModel,
    tiny_model: InstalledModel,
    vllms: dict[str, FakeVllm],
) -> None:
    slide = await stored_slide(parts, ready=True, whole=True)
    await encoded_for_tiny(client, parts, slide.id, tiny_model)
    turned = make_app(
        models=[tiny_model, demo_model], vllms=vllms, base=settings.model_copy(update={"models": THE_OTHER_WAY_ROUND})
    )
    async with client_of(turned) as other:
        found = (await other.get(f"/v1/slides/{slide.id}")).json()
        answer = (await ask(other, slide.id)).json()
        # A change of the record, made by the new default, is written down in its own order.
        await other.post(f"/v1/slides/{slide.id}/encode", json={"priority": "urgent"})
        after = (await other.get(f"/v1/slides/{slide.id}")).json()

    assert answer["answer"] == "Tiny words."
    for shown in (found, after):
        assert shown["encoder_id"] == encoder_id(tiny_model)
        assert [(it["model"], it["status"]) for it in shown["encodings"]] == [("tiny", "ready"), ("demo", "ready")]
    assert await encodings(client, slide.id) == {"demo": "ready", "tiny": "ready"}


async def test_a_deleted_slide_leaves_no_job_of_any_model(
    client: httpx.AsyncClient, parts: Parts, redis: Redis
) -> None:
    slide = await stored_slide(parts)
    await parts.jobs.enqueue(slide)
    await ask(client, slide.id, model="tiny")
    assert len(await redis.keys("saq:job:*")) == 2

    assert (await client.delete(f"/v1/slides/{slide.id}")).status_code == 204

    assert await redis.keys("saq:job:*") == []


async def test_a_worker_takes_only_jobs_of_its_models(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord
) -> None:
    await ask(client, ready.id, model="tiny")

    assert await WorkerQueue(parts.jobs, ("",)).dequeue() is None
    taken = await WorkerQueue(parts.jobs, ("", "tiny")).dequeue()
    assert taken is not None
    assert taken.kwargs is not None
    assert taken.kwargs["model"] == "tiny"


async def test_workers_are_counted_for_the_models_that_they_encode_for(
    app: FastAPI, parts: Parts, redis: Redis
) -> None:
    await announce_worker(redis, "one", ["demo"])
    await announce_worker(redis, "two", ["demo", "tiny"])
    await app.state.readiness.look()
    await withdraw_worker(redis, "two", ["demo", "tiny"])
    before = [
        parts.metrics.registry.get_sample_value("eyepiece_workers_ready", {"model": it}) for it in ("demo", "tiny")
    ]
    await app.state.readiness.look()
    after = [
        parts.metrics.registry.get_sample_value("eyepiece_workers_ready", {"model": it}) for it in ("demo", "tiny")
    ]

    assert (before, after) == ([2, 1], [1, 0])
    assert app.state.readiness.workers_ready == 1


async def test_a_resolution_belongs_to_the_slide_and_not_to_another_model(
    client: httpx.AsyncClient, ready: SlideRecord
) -> None:
    refused = await client.post(f"/v1/slides/{ready.id}/encode", json={"encoder": "tiny", "mpp": 0.5})
    assert problem_of(refused, 422) == "invalid_request"
    changed = await client.post(f"/v1/slides/{ready.id}/encode", json={"mpp": 0.5})
    assert changed.status_code == 202


async def test_an_encode_that_a_question_begins_counts(
    make_app: Callable[..., FastAPI],
    settings: Settings,
    demo_model: InstalledModel,
    tiny_model: InstalledModel,
    vllms: dict[str, FakeVllm],
) -> None:
    app = make_app(models=[demo_model, tiny_model], vllms=vllms, base=settings, quota_encodings_per_day=1)
    slides = [await stored_slide(app.state.parts, name, ready=True) for name in ("one", "two")]
    async with client_of(app) as client:
        answers = [await ask(client, it.id, model="tiny") for it in slides]
        assert await encodings(client, slides[1].id) == {"demo": "ready"}

    assert problem_of(answers[0], 409) == "slide_not_ready"
    assert problem_of(answers[1], 403) == "quota_exceeded"


def test_models_without_an_address_are_refused_by_the_api(
    settings: Settings, demo_model: InstalledModel, tiny_model: InstalledModel
) -> None:
    with pytest.raises(ModelError, match="tiny=URL"):
        build_app(settings.model_copy(update={"models": "demo=http://a.test,tiny"}), [demo_model, tiny_model])
