"""Ready means working: what is noticed of dependencies that still answer, and what goes on without the rest."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import pytest
from api_parts import encode_job, events_of, problem_of, running_worker, stored_slide, until, upload
from fakes import FakeEncode, FakeVllm, sse, token_chunk, usage
from fastapi import FastAPI
from redis.asyncio import Redis
from refusing_redis import refusing_writes

from server.api.parts import Parts
from server.asking.vllm_transport import VllmTransport
from server.upkeep.engine_watch import EngineWatch
from server.upkeep.readiness import Readiness


async def look_of(client: httpx.AsyncClient, app: FastAPI) -> dict[str, Any]:
    """What /readyz says after a look, and the status of each way to ask."""
    readiness: Readiness = app.state.readiness
    await readiness.look()
    report: dict[str, Any] = (await client.get("/readyz")).json()
    for capability, can in report["capabilities"].items():
        answer = await client.get("/readyz", params={"for": capability})
        assert answer.status_code == (200 if can else 503)
    return report


@pytest.mark.parametrize("why", ["full", "read_only"])
async def test_a_redis_that_takes_no_writes_is_noticed(
    app: FastAPI, client: httpx.AsyncClient, redis: Redis, why: Literal["full", "read_only"]
) -> None:
    async with refusing_writes(redis, why):
        without = await look_of(client, app)
        status = (await client.get("/readyz")).status_code
        refused = await upload(client, b"bytes")
        listed = await client.get("/v1/slides")
    mended = await look_of(client, app)

    assert (status, without["checks"]["redis"]) == (503, why)
    assert without["capabilities"] == {"slides": True, "uploads": False, "questions": True}
    assert problem_of(refused, 503) == "queue_unavailable"
    assert listed.status_code == 200
    assert mended["status"] == "ready"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("why", ["full", "read_only"])
async def test_an_answer_that_cannot_be_remembered_is_given_and_says_so(
    client: httpx.AsyncClient, parts: Parts, redis: Redis, why: Literal["full", "read_only"], stream: bool
) -> None:
    record = await stored_slide(parts, ready=True)
    async with refusing_writes(redis, why):
        answer = await client.post(f"/v1/slides/{record.id}/questions", json={"question": "Why?", "stream": stream})
    name, done = events_of(answer)[-1] if stream else ("done", answer.json())

    assert (answer.status_code, name) == (200, "done")
    assert (done["answer"], done["remembered"], done["conversation_id"]) == ("No tumour.", False, None)


async def test_a_conversation_goes_on_behind_a_turn_that_is_not_remembered(
    client: httpx.AsyncClient, parts: Parts, redis: Redis
) -> None:
    record = await stored_slide(parts, ready=True)
    path, body = f"/v1/slides/{record.id}/questions", {"question": "Why?", "stream": False}
    first = (await client.post(path, json=body)).json()
    body["conversation_id"] = first["conversation_id"]
    async with refusing_writes(redis, "read_only"):
        followed = (await client.post(path, json=body)).json()
    conversation = (await client.get(f"/v1/conversations/{first['conversation_id']}")).json()

    assert (first["remembered"], followed["remembered"]) == (True, False)
    assert followed["conversation_id"] == first["conversation_id"]
    assert len(conversation["turns"]) == 1


async def test_a_turn_of_a_slide_that_was_deleted_meanwhile_says_so_too(
    client: httpx.AsyncClient, parts: Parts, vllm: FakeVllm
) -> None:
    vllm.hold_before = 1
    record = await stored_slide(parts, ready=True)
    asking = asyncio.create_task(client.post(f"/v1/slides/{record.id}/questions", json={"question": "Why?"}))
    await until(lambda: len(vllm.streams) == 1)
    await client.delete(f"/v1/slides/{record.id}")
    vllm.streams[0].go_on.set()

    name, done = events_of(await asking)[-1]
    assert (name, done["remembered"], done["conversation_id"]) == ("done", False, None)


async def test_without_the_language_model_slides_are_uploaded_and_encoded_and_questions_are_refused_with_the_reason(
    app: FastAPI, client: httpx.AsyncClient, parts: Parts, vllm: FakeVllm, sample_slide: bytes
) -> None:
    vllm.is_healthy = False
    asked = await stored_slide(parts, "asked", ready=True)
    await look_of(client, app)
    without = await look_of(client, app)
    uploaded = await upload(client, sample_slide)
    encode = FakeEncode(parts.slides.new_record("default", "0" * 64, "x", 1).encoder_id)
    slide_path = f"/v1/slides/{uploaded.json()['id']}"

    async def is_ready() -> bool:
        return bool((await client.get(slide_path)).json()["status"] == "ready")

    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        await until(is_ready)
    refused = await client.post(f"/v1/slides/{asked.id}/questions", json={"question": "Why?"})
    vllm.is_healthy = True
    mended = await look_of(client, app)
    answered = await client.post(f"/v1/slides/{asked.id}/questions", json={"question": "Why?", "stream": False})

    assert without["capabilities"] == {"slides": True, "uploads": True, "questions": False}
    assert uploaded.status_code == 202
    assert problem_of(refused, 503) == "language_model_unavailable"
    assert refused.headers["Retry-After"]
    assert refused.json()["detail"].startswith("The language model does not answer")
    assert len(vllm.requests) == 2  # to see whether it is there again, and the second question
    assert mended["status"] == "ready"
    assert answered.status_code == 200


class GivenUp(VllmTransport):
    """Notes when waiting questions are given up; requests go through `transport`."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(0, 0.0)
        self._through = transport
        self.after_s: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._through.handle_async_request(request)

    def give_up_silent(self, silent_s: float) -> None:
        self.after_s.append(silent_s)


async def test_who_waits_for_an_answer_already_is_told_as_soon_as_questions_are_refused(
    parts: Parts, vllm: FakeVllm, watch: EngineWatch
) -> None:
    client = parts.models.default.language_model._client
    client._transport = given_up = GivenUp(client._transport)
    await until(watch.look)
    vllm.is_healthy = False
    seen = []
    for _ in range(3):
        await watch.look()
        seen.append(len(given_up.after_s))

    assert seen == [0, 1, 2]  # one look may meet a replica that is taking another's place
    assert set(given_up.after_s) == {5.0}


class HeldEngine:
    """Makes tokens until it is held; then requests are accepted, and nothing comes."""

    def __init__(self, vllm: FakeVllm) -> None:
        self._vllm = vllm
        vllm.script = self._answer
        self.held = False

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self._vllm.hold_before = 0 if self.held else None
        return self._vllm.stream(sse(token_chunk("x"), {"choices": [], "usage": usage(32)}))


@pytest.fixture
async def watch(parts: Parts) -> AsyncIterator[EngineWatch]:
    model = parts.models.default
    watch = EngineWatch(
        model.language_model, model.slide_inputs, model.manifest, probe_after_s=0.0, stopped_after_s=0.02
    )
    yield watch
    await watch.aclose()


async def test_an_engine_that_makes_no_tokens_is_noticed_though_vllm_calls_itself_healthy(
    client: httpx.AsyncClient, parts: Parts, vllm: FakeVllm, watch: EngineWatch
) -> None:
    record = await stored_slide(parts, ready=True)
    engine = HeldEngine(vllm)
    await until(watch.look)
    engine.held = True
    looks = [await watch.look() for _ in range(2)]
    refused = await client.post(f"/v1/slides/{record.id}/questions", json={"question": "Why?"})
    engine.held = False
    await until(watch.look)
    answered = await client.post(f"/v1/slides/{record.id}/questions", json={"question": "Why?", "stream": False})

    assert looks[-1] is False
    assert problem_of(refused, 503) == "language_model_unavailable"
    assert "no tokens" in refused.json()["detail"]
    assert answered.status_code == 200


async def test_an_engine_that_answers_others_is_not_stopped_and_another_replica_is_asked(
    parts: Parts, vllm: FakeVllm, watch: EngineWatch
) -> None:
    engine = HeldEngine(vllm)
    await until(watch.look)
    engine.held = True
    answering = asyncio.create_task(tokens_all_the_time(parts))
    looks = [await watch.look() for _ in range(5)]
    answering.cancel()

    assert all(looks)
    assert len({request.headers["X-Slide-Id"] for request in vllm.requests}) > 1


async def test_a_replica_that_refuses_is_not_asked_again_while_there_is_another(
    vllm: FakeVllm, watch: EngineWatch
) -> None:
    """As one that starts while a balancer counts it already."""

    def answer(request: httpx.Request) -> httpx.Response:
        is_first = request.headers["X-Slide-Id"] == vllm.requests[0].headers["X-Slide-Id"]
        vllm.script = None
        answered = vllm.stream([], 500) if is_first else vllm.handle(request)
        vllm.script = answer
        return answered

    vllm.script = answer

    assert [await watch.look() for _ in range(2)] == [False, True]


@pytest.mark.parametrize("late", [httpx.ReadTimeout, httpx.ConnectTimeout, httpx.PoolTimeout])
@pytest.mark.parametrize("makes_tokens", [True, False])
async def test_a_health_check_that_is_not_answered_in_time_is_judged_by_the_tokens(
    parts: Parts, vllm: FakeVllm, watch: EngineWatch, makes_tokens: bool, late: type[httpx.TimeoutException]
) -> None:
    engine = HeldEngine(vllm)
    await until(watch.look)
    vllm.is_slow_to_say_so = late
    engine.held = not makes_tokens
    looks = [await watch.look() for _ in range(4)]

    assert looks[-1] is makes_tokens
    assert (parts.models.default.language_model.refusal is None) is makes_tokens


async def tokens_all_the_time(parts: Parts) -> None:
    while True:
        parts.models.default.language_model._note_token()
        await asyncio.sleep(0.001)


async def test_while_tokens_come_nothing_is_asked(parts: Parts, vllm: FakeVllm) -> None:
    model = parts.models.default
    watch = EngineWatch(model.language_model, model.slide_inputs, model.manifest)
    await until(watch.look)
    assert [await watch.look() for _ in range(2)] == [True] * 2

    assert len(vllm.requests) == 1
