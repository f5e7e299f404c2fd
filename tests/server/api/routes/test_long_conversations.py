"""A conversation that outgrows the model's context loses its oldest turns, and the client is told how many."""

import dataclasses
from collections.abc import Callable

import httpx
import orjson
import pytest
from api_parts import client_of, events_of, stored_slide
from fakes import SLIDE_ROWS, FakeVllm, slide_parts, sse, token_chunk, usage
from fastapi import FastAPI

from model_store.installed import InstalledModel
from model_store.manifest import Abilities
from server.api.parts import Parts
from server.slides.slide_record import SlideRecord

HEADER = "X-Turns-Left-Out"
# vLLM's own words, shortened.
TOO_LONG = b'{"error":{"message":"This model\'s maximum context length is 2048 tokens. However, ...","code":400}}'


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


async def ask(client: httpx.AsyncClient, slide: SlideRecord, question: str, **more: object) -> httpx.Response:
    body = {"question": question, "stream": False, **more}
    return await client.post(f"/v1/slides/{slide.id}/questions", json=body)


async def conversation_of(client: httpx.AsyncClient, slide: SlideRecord, questions: list[str]) -> dict[str, object]:
    """Asks them one after the other; the id, as the next request carries it."""
    more: dict[str, object] = {}
    for question in questions:
        answer = await ask(client, slide, question, **more)
        assert answer.status_code == 200
        assert HEADER not in answer.headers
        more = {"conversation_id": answer.json()["conversation_id"]}
    return more


def refuse_beyond(vllm: FakeVllm, messages: int) -> None:
    """From now on, requests with more messages get vLLM's refusal, others an answer."""

    def reply(request: httpx.Request) -> httpx.Response:
        if len(orjson.loads(request.content)["messages"]) > messages:
            return httpx.Response(400, content=TOO_LONG)
        return vllm.stream(sse(token_chunk("So."), {"choices": [], "usage": usage(SLIDE_ROWS)}))

    vllm.script = reply


def texts_of(body: dict[str, object]) -> list[str]:
    """What the messages of a request say."""
    contents = [message["content"] for message in body["messages"]]  # type: ignore[attr-defined]
    return [content if isinstance(content, str) else content[-1]["text"] for content in contents]


async def test_vllm_has_the_last_word(client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm) -> None:
    more = await conversation_of(client, ready, ["One?", "Two?", "Three?"])
    refuse_beyond(vllm, 3)

    answer = await ask(client, ready, "Four?", **more)

    assert answer.status_code == 200
    assert answer.headers[HEADER] == "2"
    (asked,) = [body for body in vllm.bodies[3:] if len(body["messages"]) == 3]
    assert texts_of(asked) == ["Three?", "No tumour.", "Four?"]
    assert len(slide_parts(asked)) == 1
    remembered = (await client.get(f"/v1/conversations/{more['conversation_id']}")).json()
    assert [turn["question"] for turn in remembered["turns"]] == ["One?", "Two?", "Three?", "Four?"]


async def test_a_stream_says_so_before_its_first_event(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    more = await conversation_of(client, ready, ["One?"])
    refuse_beyond(vllm, 1)

    answer = await ask(client, ready, "Two?", **{**more, "stream": True})

    assert answer.headers[HEADER] == "1"
    assert [name for name, _ in events_of(answer)] == ["notice", "token", "done"]


async def test_room_for_the_answer_is_kept_without_asking_vllm(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    more = await conversation_of(client, ready, ["x" * 3000, "y" * 2500])
    before = len(vllm.bodies)

    answer = await ask(client, ready, "Three?", **more)
    roomy = await ask(client, ready, "Three?", **more, max_tokens=2048)

    assert (HEADER in answer.headers, roomy.headers[HEADER]) == (False, "1")
    assert [len(body["messages"]) for body in vllm.bodies[before:]] == [5, 5]


async def test_a_question_that_fits_with_no_turn_at_all_is_refused(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    more = await conversation_of(client, ready, ["One?", "Two?"])
    refuse_beyond(vllm, 0)

    refused = await ask(client, ready, "Three?", **more)

    assert (refused.status_code, refused.json()["code"]) == (413, "question_too_long")


async def test_a_chat_keeps_what_its_client_sent(client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm) -> None:
    refuse_beyond(vllm, 1)
    slide = {"type": "slide", "slide": {"id": ready.id}}
    messages = [
        {"role": "user", "content": [slide, {"type": "text", "text": "One?"}]},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Two?"},
    ]

    refused = await client.post("/v1/chat/completions", json={"model": "demo", "messages": messages})

    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "question_too_long")
    assert len(vllm.bodies) == 1


async def test_more_tokens_than_the_context_holds_are_not_asked_for(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, parts: Parts
) -> None:
    assert (await ask(client, ready, "One?", max_tokens=8192)).status_code == 200

    assert vllm.bodies[0]["max_tokens"] == parts.models.default.manifest.llm.max_model_len


async def test_of_a_conversation_longer_than_its_training_the_model_gets_the_newest_turns(
    make_app: Callable[..., FastAPI], demo_model: InstalledModel, vllm: FakeVllm
) -> None:
    manifest = demo_model.manifest.model_copy(update={"abilities": Abilities(trained_turns=2)})
    app = make_app(models=(dataclasses.replace(demo_model, manifest=manifest),))
    record = await stored_slide(app.state.parts, ready=True)
    async with client_of(app) as client:
        more = await conversation_of(client, record, ["One?", "Two?"])
        response = await ask(client, record, "Three?", **{**more, "stream": True})
        streamed = events_of(response)
        refuse_beyond(vllm, 1)
        shortened = (await ask(client, record, "Four?", **more)).json()

    assert response.headers[HEADER] == "1"
    assert texts_of(vllm.bodies[2]) == ["Two?", "No tumour.", "Three?"]
    assert len(slide_parts(vllm.bodies[2])) == 1
    for _, data in (streamed[0], streamed[-1]):
        (told,) = data["warnings"]
        assert told["code"] == "turns_left_out"
        assert "turn 3" in told["detail"]
        assert "trained on conversations of at most 2" in told["detail"]
    assert streamed[-1][1]["turn"] == 3
    (told,) = shortened["warnings"]
    assert "does not fit into the model's context" in told["detail"]
