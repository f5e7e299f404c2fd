"""Every route that reaches anything of a tenant is in the audit log: before it is answered, and before it changes
anything. The routes come from the OpenAPI document."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from api_parts import client_of, problem_of, stored_slide, until, upload
from fakes import FakeVllm
from fastapi import FastAPI

from server.identity import audit_log
from server.identity.api_keys import create_key
from server.slides.slide_record import SlideRecord

QUESTION = "Does Jane Doe have a carcinoma?"
NAMED = {"conversation_id": "conv_" + "x" * 22, "region_id": "reg_" + "0c" * 16, "upload_id": "7a" * 32}
CHANGES = {"POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def app(make_app: Callable[..., FastAPI], folder: Path) -> FastAPI:
    return make_app(audit_dir=folder)


@pytest.fixture
async def ready(app: FastAPI) -> SlideRecord:
    return await stored_slide(app.state.parts, "Doe^Jane", ready=True)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Of the only chain, without its beginning."""
    (path,) = folder.glob("*.jsonl")
    return [orjson.loads(line) for line in path.read_bytes().splitlines()][1:]


def operations(app: FastAPI, slide: str) -> Iterator[tuple[str, str, str, bool]]:
    """Method, template, address of every operation, and whether it reaches anything of a tenant."""
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            named = {it["name"]: "7" for it in operation.get("parameters", ()) if it.get("in") == "path"}
            address = path.format(**named | {"slide_id": slide} | {k: v for k, v in NAMED.items() if k in named})
            yield method.upper(), path, address, any(scopes for way in operation["security"] for scopes in way.values())


async def test_every_operation_of_the_document_writes_its_line_and_a_change_one_before_it(
    app: FastAPI, folder: Path, ready: SlideRecord
) -> None:
    key = await create_key(app.state.parts.store, "default", None)
    asked = sorted(operations(app, ready.id), key=lambda it: (it[0] == "DELETE", it[1]))
    assert sum(is_audited for *_, is_audited in asked) > 30
    async with client_of(app, key) as client:
        before = 0
        for method, path, address, is_audited in asked:
            body = {"json": {}} if method in CHANGES - {"DELETE"} else {}
            async with asyncio.timeout(30):
                answer = await client.request(method, address, **body)
            written = lines(folder)[before:] if folder.exists() else []
            before += len(written)
            phases = (["begun"] if method in CHANGES else []) + ["done"] if is_audited else []
            assert [it["phase"] for it in written] == phases, (method, path)
            for it in written:
                assert it["action"] == f"{method} {path}"
                assert (it["tenant"], it["who"]) == ("default", key[:10])
                assert it.get("slide") == (ready.id if "{slide_id}" in path else None)
            if written:
                assert written[-1]["outcome"] == answer.status_code
                assert written[-1]["request_id"] == answer.headers["x-request-id"]
            if len(written) == 2:
                assert written[1]["begun"] == written[0]["n"]


async def test_a_line_says_who_which_slide_why_and_how_it_ended_and_nothing_of_a_patient(
    app: FastAPI, folder: Path, sample_slide: bytes, vllm: FakeVllm
) -> None:
    async with client_of(app) as client:
        slide = (await upload(client, sample_slide, "Doe^Jane.svs")).json()["id"]
        headers = {"X-Purpose-Of-Use": "TREAT"}
        asked = await client.post(f"/v1/slides/{slide}/questions", json={"question": QUESTION}, headers=headers)
        await client.get("/v1/slides", params={"name": "doe^jane"})
        await client.get("/v1/slides/Doe^Jane")
        await client.get("/v1/conversations/doe_jane")
        await client.delete(f"/v1/slides/{slide}")

    found = lines(folder)
    assert [it.get("slide") for it in found if it["action"] == "POST /v1/slides"] == [None, slide]
    question = next(it for it in found if it["action"].endswith("/questions") and it["phase"] == "done")
    assert (question["purpose"], question["who"], question["outcome"]) == ("TREAT", "keyless", asked.status_code)
    assert [it["outcome"] for it in found if it["action"] == "GET /v1/slides/{slide_id}"] == [404]
    assert {it.get("slide") for it in found} == {None, slide}
    written = b"".join(path.read_bytes() for path in folder.iterdir()).lower()
    assert b"doe" not in written
    assert b"carcinoma" not in written


async def test_conversations_and_chats_say_their_slide_and_questions_only_where_configured(
    make_app: Callable[..., FastAPI], folder: Path
) -> None:
    app = make_app(audit_dir=folder, audit_questions=True)
    slide = (await stored_slide(app.state.parts, ready=True)).id
    content = [{"type": "slide", "slide": {"id": slide}}, {"type": "text", "text": QUESTION}]
    async with client_of(app) as client:
        asked = {"question": QUESTION, "stream": False}
        answer = (await client.post(f"/v1/slides/{slide}/questions", json=asked)).json()
        await client.get(f"/v1/conversations/{answer['conversation_id']}")
        await client.get("/v1/conversations", params={"slide": slide})
        chat = {"model": "demo", "messages": [{"role": "user", "content": content}]}
        assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200

    done = [it for it in lines(folder) if it["phase"] == "done"]
    assert [it["slide"] for it in done] == [slide] * 4
    assert done[1]["about"] == {"conversation": answer["conversation_id"]}
    assert [it.get("question", "").strip() for it in done] == [QUESTION, "", "", QUESTION]


async def test_a_purpose_that_is_no_code_is_refused_and_not_written(app: FastAPI, folder: Path) -> None:
    async with client_of(app) as client:
        refused = await client.get("/v1/slides", headers={"X-Purpose-Of-Use": "for Jane Doe"})

    assert problem_of(refused, 422) == "invalid_request"
    assert "TREAT" in refused.json()["detail"]
    (line,) = lines(folder)
    assert (line["outcome"], line.get("purpose")) == (422, None)


async def test_nobody_has_no_line_and_a_scope_that_lacks_has_one(
    make_app: Callable[..., FastAPI], folder: Path
) -> None:
    app = make_app(audit_dir=folder, require_key=True)
    key = await create_key(app.state.parts.store, "a", None, ("ask",))
    async with client_of(app) as nobody, client_of(app, key) as asking:
        assert (await nobody.get("/v1/slides")).status_code == 401
        assert not folder.exists()
        assert (await asking.get("/v1/slides")).status_code == 403

    assert [(it["tenant"], it["outcome"]) for it in lines(folder)] == [("a", 403)]


async def test_where_it_cannot_be_written_nothing_is_done_and_nothing_told(
    app: FastAPI, folder: Path, ready: SlideRecord, vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_text("no folder")
    slide = f"/v1/slides/{ready.id}"
    async with client_of(app) as client:
        refused = [
            await client.delete(slide),
            await client.get(slide),
            await client.head(f"{slide}/features"),
            await client.get(f"{slide}/events"),
            await client.post(f"{slide}/questions", json={"question": "Why?"}),
        ]
        assert {answer.status_code for answer in refused} == {503}
        assert problem_of(refused[1], 503) == "audit_unavailable"
        assert refused[1].headers["retry-after"] == "30"
        assert vllm.requests == []
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/livez")).status_code == 200

        folder.unlink()
        monkeypatch.setattr(audit_log, "_RETRY_AFTER_S", 0.0)
        await until(lambda: _answers(client, slide), 10)
    assert [it["outcome"] for it in lines(folder)] == [200]


async def _answers(client: httpx.AsyncClient, path: str) -> bool:
    return (await client.get(path)).status_code == 200


async def test_an_answer_that_was_made_is_kept_back_when_its_line_cannot_be_written(
    app: FastAPI, folder: Path, ready: SlideRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(app) as client:
        await client.get("/v1/slides")

        def full(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "fdatasync", full)
        kept_back = await client.get(f"/v1/slides/{ready.id}")

    assert problem_of(kept_back, 503) == "audit_unavailable"
    assert ready.id not in kept_back.text


async def test_a_bug_has_a_line_too(
    app: FastAPI, folder: Path, ready: SlideRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(app.state.parts.slides), "require_readable_or_not", fail)
    async with client_of(app) as client:
        assert (await client.get(f"/v1/slides/{ready.id}")).status_code == 500

    assert [it["outcome"] for it in lines(folder)] == [500]
