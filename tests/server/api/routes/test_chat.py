"""/v1/chat/completions and /v1/models, once by hand and once with OpenAI's own client."""

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from api_parts import client_of, stored_slide
from fakes import SLIDE_ROWS, FakeVllm, sse, token_chunk, usage
from fastapi import FastAPI

from model_store.installed import InstalledModel
from model_store.manifest import Abilities
from server.api.parts import Parts
from server.slides.slide_record import SlideRecord, SlideWarning

PATH = "/v1/chat/completions"
HANDED = Path(__file__).parents[5] / "shared/cases/openai_neutral_options.jsonl"


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


@pytest.fixture
async def openai_client(app: FastAPI) -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(
        api_key="EMPTY", base_url="http://127.0.0.1:8000/v1", http_client=client_of(app), max_retries=0
    )
    yield client
    await client.close()


def messages(slide: str, question: str = "Why?", *, as_image: bool = False) -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": f"slide:{slide}"}}
    part = image if as_image else {"type": "slide", "slide": {"id": slide}}
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]


async def complete(client: httpx.AsyncClient, slide: str, **options: Any) -> httpx.Response:
    return await client.post(PATH, json={"model": "demo", "messages": messages(slide)} | options)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("as_image", [False, True])
async def test_a_chat_is_answered_whole(client: httpx.AsyncClient, ready: SlideRecord, as_image: bool) -> None:
    answer = await complete(client, ready.id, messages=messages(ready.id, as_image=as_image))

    body = answer.json()
    assert answer.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "No tumour."
    assert "not a diagnosis" in body["notice"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_says_what_is_doubtful_about_its_slide(
    client: httpx.AsyncClient, parts: Parts, stream: bool
) -> None:
    doubt = {"code": "tiles_thinned", "detail": "The slide has 40000 tiles and the model takes 30000."}
    slide = await stored_slide(parts, "doubtful", ready=True, warnings=(SlideWarning(**doubt),))

    answer = await complete(client, slide.id, stream=stream)

    if not stream:
        assert answer.json()["warnings"] == [doubt]
        return
    sent = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    first, *rest = (json.loads(data) for data in sent if data != "[DONE]")
    assert first["warnings"] == [doubt]
    assert rest
    assert not any("warnings" in chunk for chunk in rest)


async def test_openais_own_client_streams_an_answer(openai_client: openai.AsyncOpenAI, ready: SlideRecord) -> None:
    stream = await openai_client.chat.completions.create(
        model="demo",
        messages=messages(ready.id),  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "No tumour."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_openais_own_client_finds_the_model(openai_client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in openai_client.models.list()] == ["demo"]


async def test_openais_own_client_raises_its_own_exceptions(
    openai_client: openai.AsyncOpenAI, ready: SlideRecord, parts: Parts, vllm: FakeVllm
) -> None:
    waiting = await stored_slide(parts, "waiting")
    create = openai_client.chat.completions.create

    with pytest.raises(openai.NotFoundError):
        await create(model="demo", messages=messages("0" * 64))  # type: ignore[arg-type]
    with pytest.raises(openai.ConflictError):
        await create(model="demo", messages=messages(waiting.id))  # type: ignore[arg-type]
    with pytest.raises(openai.UnprocessableEntityError):
        await create(model="gpt-4", messages=messages(ready.id))  # type: ignore[arg-type]
    vllm.answer_with(*sse(token_chunk("No ", slide_tokens=SLIDE_ROWS), done=False))
    stream = await create(model="demo", messages=messages(ready.id), stream=True)  # type: ignore[arg-type]
    with pytest.raises(openai.APIError, match="ended early"):
        _ = [chunk async for chunk in stream]


async def test_a_stream_ends_with_done_even_after_an_error(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    vllm.answer_with(*sse(token_chunk("A guess"), {"choices": [], "usage": usage(0)}))

    answer = await complete(client, ready.id, stream=True)

    data = [block.removeprefix("data: ") for block in answer.text.split("\n\n") if block]
    assert data[-1] == "[DONE]"
    assert json.loads(data[-2])["error"]["code"] == "slide_lost"


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ({"model": "gpt-4"}, "invalid_request", 422),
        ({"tools": [{}]}, "invalid_request", 422),
        ({"\ufffd": 1}, "invalid_request", 422),
        ({"n": 2}, "invalid_request", 422),
        ({"temperature": "hot"}, "invalid_request", 422),
        ({"messages": []}, "invalid_request", 422),
        ({"messages": [{"role": "user", "content": "no slide"}]}, "invalid_request", 422),
        ({"messages": messages("0" * 64)}, "not_found", 404),
        ({"messages": messages("0" * 64, "x" * 5 * 2**20)}, "body_too_large", 413),
    ],
)
async def test_every_refusal_has_openais_envelope(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, changes: dict[str, Any], code: str, status: int
) -> None:
    error = error_of(await complete(client, ready.id, **changes), status)

    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert vllm.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"model": "demo", "messages": [], "\\ud800": 1}',
        b'{"model": "demo", "messages": [{"role": "user", "content": "x"}], "\\ud800": 1}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "demo", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "demo", "logit_bias": {"a": NaN}, "messages": [{"role": "user", "content": "x"}]}',
    ],
)
async def test_a_body_that_cannot_be_read_has_it_too(client: httpx.AsyncClient, body: bytes) -> None:
    refused = await client.post(PATH, content=body, headers={"Content-Type": "application/json"})

    assert error_of(refused, 422)["code"] == "invalid_request"


@pytest.mark.parametrize(
    "url", ["https://example.com/x.png", "data:image/png;base64,AA", "file:///etc/passwd", "http://[", "ftp://x"]
)
async def test_an_image_from_elsewhere_is_refused(
    client: httpx.AsyncClient, ready: SlideRecord, url: str, vllm: FakeVllm
) -> None:
    spelled = messages(ready.id, as_image=True)
    spelled[0]["content"][0]["image_url"]["url"] = url

    error = error_of(await complete(client, ready.id, messages=spelled), 422)

    assert "slide:<slide id>" in error["message"]
    assert vllm.requests == []


async def test_the_wrong_method_and_a_missing_key_have_it_too(client: httpx.AsyncClient) -> None:
    assert error_of(await client.get(PATH), 405)["code"] == "method_not_allowed"
    refused = await client.post(PATH, json={}, headers={"Origin": "https://evil.example"})
    assert error_of(refused, 401)["code"] == "unauthorized"


async def test_a_host_that_is_no_name_is_refused_in_it_too(client: httpx.AsyncClient) -> None:
    assert error_of(await client.post(PATH, json={}, headers={"Host": "["}), 401)["code"] == "unauthorized"


async def test_an_answer_in_one_piece_counts_as_answered(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord
) -> None:
    assert (await complete(client, ready.id)).status_code == 200
    assert (await complete(client, ready.id, stream=True)).status_code == 200

    assert parts.metrics.questions.labels("demo", "answered")._value.get() == 2
    assert parts.metrics.questions.labels("demo", "cancelled")._value.get() == 0


async def test_openais_own_client_asks_for_one_model(openai_client: openai.AsyncOpenAI) -> None:
    model = await openai_client.models.retrieve("demo")

    assert (model.id, model.object, model.owned_by) == ("demo", "model", "eyepiece")
    assert model.model_dump()["quantization"] == "none"
    for name in ("gpt-4", "org/name", "demo/"):
        with pytest.raises(openai.NotFoundError, match="it serves demo"):
            await openai_client.models.retrieve(name)


@pytest.mark.skipif(not HANDED.is_file(), reason="the requests from the field are not here")
async def test_requests_from_the_field_with_neutral_options_are_answered(
    client: httpx.AsyncClient, ready: SlideRecord
) -> None:
    for line in HANDED.read_text().splitlines():
        body = json.dumps(json.loads(line)["body"]).replace("SLIDE_ID", ready.id)
        answer = await client.post(PATH, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, json.loads(line)["case"]


async def test_the_models_say_what_they_can_be_asked(
    make_app: Callable[..., FastAPI], demo_model: InstalledModel
) -> None:
    abilities = Abilities(topics={"grade": "What grade is it?", "tumour fraction": "How much?"}, trained_turns=8)

    async with client_of(make_app(models=(with_abilities(demo_model, abilities),))) as client:
        (told,) = (await client.get("/v1/models")).json()["data"]
        alone = (await client.get("/v1/models/demo")).json()

    assert told == alone
    assert told["topics"] == [
        {"name": "grade", "example": "What grade is it?"},
        {"name": "tumour fraction", "example": "How much?"},
    ]
    assert (told["trained_turns"], told["kind"]) == (8, "tiles")
    assert "not a diagnosis" in told["notice"]


async def test_a_model_of_which_nobody_said_it_has_no_topics(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/models/demo")).json()

    assert (told["topics"], told["trained_turns"]) == ([], None)


async def test_the_notice_stands_in_every_chunk_and_a_doubt_in_the_first(
    make_app: Callable[..., FastAPI], demo_model: InstalledModel
) -> None:
    app = make_app(models=(with_abilities(demo_model, Abilities(trained_turns=2)),))
    record = await stored_slide(app.state.parts, ready=True)
    spoken = messages(record.id)
    for _ in range(2):
        spoken += [{"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"}]

    async with openai.AsyncOpenAI(
        api_key="EMPTY", base_url="http://127.0.0.1:8000/v1", http_client=client_of(app), max_retries=0
    ) as client:
        within = await client.chat.completions.create(model="demo", messages=spoken[:3], stream=True)  # type: ignore[call-overload]
        first_within, *_ = [chunk async for chunk in within]
        beyond = await client.chat.completions.create(model="demo", messages=spoken, stream=True)  # type: ignore[call-overload]
        chunks = [chunk async for chunk in beyond]
        whole = await client.chat.completions.create(model="demo", messages=spoken)  # type: ignore[call-overload]

    assert all("not a diagnosis" in chunk.notice for chunk in chunks)
    assert chunks[0].choices[0].delta.content == ""
    assert [warning["code"] for warning in chunks[0].warnings] == ["beyond_trained_turns"]
    assert "turn 3" in chunks[0].warnings[0]["detail"]
    assert not any(hasattr(chunk, "warnings") for chunk in [first_within, *chunks[1:]])
    assert whole.warnings == chunks[0].warnings


def with_abilities(model: InstalledModel, abilities: Abilities) -> InstalledModel:
    return dataclasses.replace(model, manifest=model.manifest.model_copy(update={"abilities": abilities}))


def by_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "report", "schema": schema, **more}}


NECROSIS = {"type": "object", "properties": {"necrosis": {"type": "boolean"}}, "required": ["necrosis"]}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_by_a_schema_is_asked_for_and_held_against_it(
    openai_client: openai.AsyncOpenAI, ready: SlideRecord, vllm: FakeVllm, stream: bool
) -> None:
    async def answered(*words: str, finish: str = "stop") -> str:
        end = token_chunk("", finish=finish)
        vllm.answer_with(*sse(*map(token_chunk, words), end, {"choices": [], "usage": usage(SLIDE_ROWS)}))
        create: Any = openai_client.chat.completions.create
        said = await create(
            model="demo", messages=messages(ready.id), response_format=by_schema(NECROSIS, strict=True), stream=stream
        )
        if not stream:
            return str(said.choices[0].message.content)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in said])

    assert json.loads(await answered('{"necro', 'sis":true}')) == {"necrosis": True}
    sent = vllm.bodies[-1]["response_format"]["json_schema"]["schema"]
    assert sent == {**NECROSIS, "additionalProperties": False}
    assert await answered('{"necro', finish="length") == '{"necro', "its end says that it is not whole"
    with pytest.raises(openai.APIError, match="does not follow the schema"):
        await answered('{"necrosis":1}')


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"response_format": {"type": "json_object"}}, "text or json_schema"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": by_schema({"type": "string"})}, "must describe an object"),
        ({"response_format": by_schema(NECROSIS), "stop": ["}"]}, "`stop`"),
        ({"response_format": by_schema(NECROSIS, grammar="x")}, "grammar"),
        ({"response_format": {"type": "text", "whitespace": ""}}, "whitespace"),
    ],
)
async def test_a_format_that_is_not_to_be_had_is_refused(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, options: dict[str, Any], told: str
) -> None:
    assert told in error_of(await complete(client, ready.id, **options), 422)["message"]
    assert not vllm.requests
