"""Questions and conversations through the whole API, with a fake vLLM behind it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_parts import client_of, events_of, stored_slide, until
from fakes import SLIDE_ROWS, FakeVllm, slide_parts, sse, token_chunk, usage
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis

from server.api.parts import Parts
from server.embeddings.slide_inputs import SlideInputCache
from server.machine.redis_server import free_loopback_port
from server.slides.slide_record import SlideError, SlideRecord, SlideWarning

DONE_FIELDS = {
    "answer",
    "choices",
    "conversation_id",
    "encoder_id",
    "model",
    "notice",
    "remembered",
    "scope",
    "timing",
    "turn",
    "usage",
    "warnings",
}
SURROGATE = b'{"question": "\\ud800"}'


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


async def ask(
    client: httpx.AsyncClient, slide: str, question: str = "Is there a tumour?", **more: Any
) -> httpx.Response:
    return await client.post(f"/v1/slides/{slide}/questions", json={"question": question, **more})


def code_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    return str(response.json()["code"])


def sample(parts: Parts, name: str, **labels: str) -> float:
    return parts.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_an_answer_streams_its_tokens_and_then_its_account(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    answer = await ask(client, ready.id)

    events = events_of(answer)
    assert [name for name, _ in events] == ["notice", "token", "token", "done"]
    assert [data["text"] for name, data in events if name == "token"] == ["No ", "tumour."]
    done = events[-1][1]
    assert set(done) == DONE_FIELDS
    assert (done["answer"], done["model"], done["encoder_id"]) == ("No tumour.", "demo", ready.encoder_id)
    assert set(done["usage"]) == {"prompt_tokens", "slide_tokens", "cached_tokens", "completion_tokens"}
    assert done["usage"]["slide_tokens"] == SLIDE_ROWS
    assert set(done["timing"]) == {"cache_ms", "time_to_first_token_ms", "total_ms"}
    assert "not a diagnosis" in done["notice"]
    assert (done["turn"], done["scope"], done["warnings"]) == (1, {"kind": "slide"}, [])
    assert done["choices"] == []
    assert events[0][1] == {name: done[name] for name in ("notice", "model", "encoder_id", "scope", "warnings")}
    assert answer.headers["Cache-Control"] == "no-cache"
    assert sample(parts, "eyepiece_questions_total", model="demo", outcome="answered") == 1
    assert sample(parts, "eyepiece_questions_running", model="demo") == 0


async def test_without_a_stream_the_account_is_the_body(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    answer = await ask(client, ready.id, stream=False)

    assert answer.status_code == 200
    assert set(answer.json()) == DONE_FIELDS
    assert answer.json()["answer"] == "No tumour."


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_says_what_is_doubtful_about_its_slide(
    client: httpx.AsyncClient, parts: Parts, stream: bool
) -> None:
    doubt = {"code": "tiles_thinned", "detail": "The slide has 40000 tiles and the model takes 30000."}
    slide = await stored_slide(parts, ready=True, warnings=(SlideWarning(**doubt),))
    other = await stored_slide(parts, "other", ready=True)

    answers = [await ask(client, it.id, stream=stream) for it in (slide, other)]

    for answer, expected in zip(answers, ([doubt], []), strict=True):
        said = [data for name, data in events_of(answer) if name != "token"] if stream else [answer.json()]
        assert [it["warnings"] for it in said] == [expected] * len(said), "in the first event and in the last"


async def test_what_an_encode_found_while_it_was_asked_about_is_said(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubt = SlideWarning(code="tiles_thinned", detail="The slide has 40000 tiles and the model takes 30000.")
    find = SlideInputCache.find

    async def find_at_the_end(cache: SlideInputCache, record: SlideRecord) -> Any:
        noted = record.model_copy(update={"warnings": (doubt,), "tile_count": 40_000})
        await parts.slides.update(noted, lambda _: noted)
        return await find(cache, record)

    monkeypatch.setattr(SlideInputCache, "find", find_at_the_end)

    answer = await ask(client, ready.id, stream=False)

    assert [it["code"] for it in answer.json()["warnings"]] == ["tiles_thinned"]


async def test_a_follow_up_carries_the_turns_before_it(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    first = (await ask(client, ready.id, "One?", stream=False)).json()
    second = await ask(client, ready.id, "Two?", stream=False, conversation_id=first["conversation_id"])

    assert second.json()["conversation_id"] == first["conversation_id"]
    messages = vllm.bodies[1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0] == vllm.bodies[0]["messages"][0]
    assert (messages[1]["content"], messages[2]["content"]) == ("No tumour.", "Two?")
    remembered = (await client.get(f"/v1/conversations/{first['conversation_id']}")).json()
    assert [turn["question"] for turn in remembered["turns"]] == ["One?", "Two?"]
    assert remembered["slide_id"] == ready.id
    assert remembered["turns"][0]["created_at"].endswith("Z")
    assert [turn["number"] for turn in remembered["turns"]] == [first["turn"], second.json()["turn"]] == [1, 2]
    assert remembered["turns"][1]["request_id"] == second.headers["X-Request-Id"]
    assert remembered["turns"][1]["encoder_id"] == ready.encoder_id


async def test_a_conversation_can_be_forgotten(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    url = f"/v1/conversations/{(await ask(client, ready.id, stream=False)).json()['conversation_id']}"

    assert (await client.delete(url)).status_code == 204
    assert code_of(await client.get(url), 404) == "not_found"
    assert code_of(await client.delete(url), 404) == "not_found"


async def test_wishes_reach_the_model_and_defaults_fill_the_rest(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    await ask(client, ready.id, max_tokens=5, temperature=0.5, seed=-1)
    await ask(client, ready.id)

    wished, default = vllm.bodies
    assert (wished["max_tokens"], wished["temperature"], wished["seed"]) == (5, 0.5, -1)
    assert (default["max_tokens"], default["temperature"]) == (48, 0.0)
    assert "seed" not in default


async def test_a_slide_that_is_not_ready_is_asked_about_later(client: httpx.AsyncClient, parts: Parts) -> None:
    waiting = await stored_slide(parts)

    refused = await ask(client, waiting.id)

    assert code_of(refused, 409) == "slide_not_ready"
    assert int(refused.headers["Retry-After"]) > 0


async def test_a_slide_that_failed_says_why(client: httpx.AsyncClient, parts: Parts) -> None:
    failed = await stored_slide(parts, error=SlideError(code="no_tissue", detail="There is none."))

    refused = await ask(client, failed.id)

    assert code_of(refused, 409) == "slide_failed"
    assert "no_tissue" in refused.json()["detail"]
    assert "Retry-After" not in refused.headers


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"question": ""}', 422, "invalid_request"),
        (b'{"question": "  \\n\\t "}', 422, "invalid_request"),
        (b'{"question": "<image>"}', 422, "invalid_request"),
        (b'{"question": "<im<image>age>"}', 422, "invalid_request"),
        (b'{"question": "<imag\\u0000e>"}', 422, "invalid_request"),
        (b'{"question": "\\u0000"}', 422, "invalid_request"),
        (SURROGATE, 422, "invalid_request"),
        (b'{"question": "\xff\xfe"}', 422, "invalid_request"),
        (b'{"question": 5}', 422, "invalid_request"),
        (b'{"question": null}', 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b"", 422, "invalid_request"),
        (b"question=why", 422, "invalid_request"),
        (b'{"question": "x", "temperature": NaN}', 422, "invalid_request"),
        (b'{"question": "x", "temperature": -Infinity}', 422, "invalid_request"),
        (b'{"question": "x", "temperature": 1e999}', 422, "invalid_request"),
        (b'{"question": "x", "max_tokens": 0}', 422, "invalid_request"),
        (b'{"question": "x", "max_tokens": 1e30}', 422, "invalid_request"),
        (b'{"question": "x", "seed": ' + b"9" * 30 + b"}", 422, "invalid_request"),
        (b'{"question": "x", "seed": ' + b"9" * 5000 + b"}", 422, "invalid_request"),
        (b'{"question": "x", "conversation_id": "' + b"x" * 65 + b'"}', 422, "invalid_request"),
        (b'{"question": "x", "conversation_id": "\\ud800"}', 422, "invalid_request"),
        (b'{"question": "x", "system": "obey"}', 422, "invalid_request"),
        (b'{"question": "x", "\\ud800": 1}', 422, "invalid_request"),
        (b'{"question": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 422, "invalid_request"),
        (b'{"question": "' + b"x" * 8001 + b'"}', 413, "question_too_long"),
        (b'{"question": "' + b"x" * 2**20 + b'"}', 413, "question_too_long"),
        (b'{"question": "' + b"x" * (4 * 2**20) + b'"}', 413, "body_too_large"),
    ],
    ids=lambda value: repr(value[:45]) if isinstance(value, bytes) else str(value),
)
async def test_a_question_that_is_none_is_refused_before_anything_is_asked(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, body: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    refused = await client.post(f"/v1/slides/{ready.id}/questions", content=body, headers=headers)

    assert code_of(refused, status) == code
    assert vllm.requests == []
    assert len(refused.text) < 1000


@pytest.mark.parametrize("field", [{"n": 2}, {"best_of": 2}, {"use_beam_search": True}, {"num_beams": 3}])
async def test_beams_are_refused_with_the_reason(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, field: dict[str, Any]
) -> None:
    refused = await ask(client, ready.id, **field)

    assert code_of(refused, 422) == "invalid_request"
    assert f"({next(iter(field))}): vLLM begins every step of a beam as a new prompt" in refused.json()["detail"]
    assert vllm.requests == []


async def test_the_models_own_control_tokens_do_not_reach_it(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, vllm: FakeVllm
) -> None:
    own = parts.models.default.control_text
    assert own.removed_from("<s>a</s>") == "a"

    await ask(client, ready.id, "<unk>What</s> is it?<|im_end|>", stream=False)

    [message] = vllm.bodies[0]["messages"]
    assert message["content"][-1]["text"] == "What is it?"


async def test_a_placeholder_in_a_question_does_not_reach_the_model(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    await ask(client, ready.id, "What <image> is </s> this <IMAGE>?")

    (text,) = [part["text"] for part in vllm.bodies[0]["messages"][0]["content"] if part["type"] == "text"]
    assert text == "What  is  this ?"
    assert len(slide_parts(vllm.bodies[0])) == 1


async def test_an_unknown_conversation_is_not_found(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    for conversation_id in ("", "x", "conv_" + "x" * 22):
        refused = await ask(client, ready.id, conversation_id=conversation_id)
        assert code_of(refused, 404) == "not_found"


async def test_a_conversation_about_another_slide_is_refused(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    other = await stored_slide(parts, "other", ready=True)
    conversation = (await ask(client, ready.id, stream=False)).json()["conversation_id"]

    assert code_of(await ask(client, other.id, conversation_id=conversation), 409) == "wrong_conversation"


async def test_an_answer_that_breaks_off_ends_with_an_error(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, parts: Parts
) -> None:
    vllm.answer_with(*sse(token_chunk("No ", slide_tokens=SLIDE_ROWS), {"error": {"message": "dead"}}))

    events = events_of(await ask(client, ready.id))

    assert [name for name, _ in events] == ["notice", "token", "error"]
    assert set(events[-1][1]) == {"code", "detail"}
    assert events[-1][1]["code"] == "language_model_failed"
    assert code_of(await ask(client, ready.id, stream=False), 502) == "language_model_failed"
    assert sample(parts, "eyepiece_questions_total", model="demo", outcome="language_model_failed") == 2
    assert sample(parts, "eyepiece_questions_running", model="demo") == 0


async def test_an_answer_without_the_slide_is_called_that_and_not_remembered(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, parts: Parts, redis: Redis
) -> None:
    vllm.answer_with(*sse(token_chunk("A guess"), {"choices": [], "usage": usage(0)}))

    events = events_of(await ask(client, ready.id))
    whole = await ask(client, ready.id, stream=False)

    assert [name for name, _ in events] == ["notice", "token", "error"]
    assert events[-1][1]["code"] == code_of(whole, 502) == "slide_lost"
    assert "guess" not in whole.text
    assert sample(parts, "eyepiece_slide_tokens_lost_total", model="demo") == 2
    assert [key for key in await redis.keys("*") if b"conversation" in key] == []


async def test_a_broken_answer_is_not_remembered(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, redis: Redis
) -> None:
    vllm.answer_with(*sse(token_chunk("No ", slide_tokens=SLIDE_ROWS), done=False))

    await ask(client, ready.id)

    assert [key for key in await redis.keys("*") if b"conversation" in key] == []


async def test_a_model_that_is_away_is_told_before_the_stream(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    vllm.script = refuse

    refused = await ask(client, ready.id)

    assert code_of(refused, 503) == "language_model_unavailable"
    assert int(refused.headers["Retry-After"]) > 0


async def test_without_redis_the_answer_comes_from_the_store_and_is_not_called_remembered(
    make_app: Callable[..., FastAPI],
) -> None:
    app = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))
    record = await stored_slide(app.state.parts, ready=True)

    async with client_of(app) as client:
        events = events_of(await ask(client, record.id))
        whole = await ask(client, record.id, stream=False)

    assert [name for name, _ in events] == ["notice", "token", "token", "done"]
    for done in (events[-1][1], whole.json()):
        assert done["answer"] == "No tumour."
        assert (done["remembered"], done["conversation_id"], done["turn"]) == (False, None, None)


async def test_a_slide_deleted_while_it_answers_leaves_no_turn(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, redis: Redis
) -> None:
    vllm.hold_before = 1
    asking = asyncio.create_task(ask(client, ready.id, stream=False))
    await until(lambda: bool(vllm.streams))

    await client.delete(f"/v1/slides/{ready.id}")
    vllm.streams[0].go_on.set()

    assert (await asking).status_code == 200
    assert await redis.keys("eyepiece:{default}:*") == []


async def test_a_slide_deleted_while_its_turn_is_remembered_leaves_no_turn(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_turn = parts.conversations.add_turn

    async def behind_a_deletion(*turn: Any) -> int | None:
        await client.delete(f"/v1/slides/{ready.id}")
        return await add_turn(*turn)

    monkeypatch.setattr(parts.conversations, "add_turn", behind_a_deletion)
    told = (await ask(client, ready.id, stream=False)).json()

    assert (told["remembered"], told["conversation_id"]) == (False, None)
    assert await redis.keys("eyepiece:{default}:*") == []


async def test_an_answer_names_the_encoder_of_the_embedding_that_it_was_given(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_slides = parts.models.named(None).asked_slides
    find = asked_slides.find

    async def before_a_change(slide: SlideRecord) -> Any:
        found = await find(slide)
        await parts.slides.update(ready, lambda stored: parts.slides.with_override(stored, 0.3))
        return found

    monkeypatch.setattr(asked_slides, "find", before_a_change)
    told = (await ask(client, ready.id, stream=False)).json()

    assert told["encoder_id"] == ready.encoder_id


async def test_no_more_questions_at_once_than_there_are_slots(make_app: Callable[..., FastAPI], vllm: FakeVllm) -> None:
    app = make_app(max_concurrent_questions=2)
    record = await stored_slide(app.state.parts, ready=True)
    vllm.hold_before = 1
    async with client_of(app) as client:
        asking = [asyncio.create_task(ask(client, record.id, stream=stream)) for stream in (True, False)]
        await until(lambda: len(vllm.streams) == 2)
        refused = await ask(client, record.id)
        for stream in vllm.streams:
            stream.go_on.set()
        answers = await asyncio.gather(*asking)
        vllm.hold_before = None
        again = [await ask(client, record.id, stream=stream) for stream in (True, False, True, False)]

    assert code_of(refused, 429) == "overloaded"
    assert int(refused.headers["Retry-After"]) > 0
    assert {answer.status_code for answer in [*answers, *again]} == {200}


async def test_a_refused_question_gives_its_slot_back(make_app: Callable[..., FastAPI], vllm: FakeVllm) -> None:
    app = make_app(max_concurrent_questions=1)
    record = await stored_slide(app.state.parts, ready=True)
    waiting = await stored_slide(app.state.parts, "waiting")

    async with client_of(app) as client:
        for _ in range(3):
            for stream in (True, False):
                assert (await ask(client, waiting.id, stream=stream)).status_code == 409
                assert (await ask(client, record.id, "<image>", stream=stream)).status_code == 422
                assert (await ask(client, "0" * 64, stream=stream)).status_code == 404
                vllm.script = lambda _: httpx.Response(500)
                assert (await ask(client, record.id, stream=stream)).status_code == 502
                vllm.answer_with(b"data: garbage\n\n")
                assert (await ask(client, record.id, stream=stream)).status_code in (200, 502)
                vllm.script = None
        assert (await ask(client, record.id)).status_code == 200
