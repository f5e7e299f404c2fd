"""Reports through the whole API: written, kept or not, read in every form, deleted."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from api_parts import client_of, events_of, problem_of, stored_slide
from fakes import FakeVllm, sse, token_chunk
from fastapi import FastAPI
from fhir_schema import require_r4

from server.admission.rate_limits import RateLimits
from server.api.parts import Parts
from server.slides.slide_record import SlideRecord, SlideWarning
from server.uploads.slide_metadata import SlideMetadata

TEMPLATE = {
    "title": "Breast biopsy",
    "sections": [
        {"heading": "Tissue", "question": "What tissue is this?"},
        {"heading": "Findings", "question": "What is seen?"},
    ],
}


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    doubt = SlideWarning(code="tiles_thinned", detail="Some tiles were left out.")
    said = SlideMetadata(case="S26-0815", patient_ref="p-5f2c", accession="A1")
    return await stored_slide(parts, ready=True, metadata=said, warnings=(doubt,))


async def write(client: httpx.AsyncClient, slide: SlideRecord, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/slides/{slide.id}/reports", json=TEMPLATE | {"stream": False} | body)


async def numbers(client: httpx.AsyncClient, slide: SlideRecord) -> list[int]:
    return [it["number"] for it in (await client.get(f"/v1/slides/{slide.id}/reports")).json()["data"]]


async def test_a_report_is_written_section_by_section_and_kept(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, vllm: FakeVllm
) -> None:
    events = events_of(await client.post(f"/v1/slides/{ready.id}/reports", json=TEMPLATE))

    assert [name for name, _ in events] == ["report", *["token", "token", "section"] * 2, "done"]
    begun, report = events[0][1], events[-1][1]
    assert (begun["title"], begun["sections"]) == ("Breast biopsy", ["Tissue", "Findings"])
    assert begun["notice"] == report["model"]["notice"]
    assert [(it["section"], it["heading"]) for name, it in events if name == "section"] == [
        (1, "Tissue"),
        (2, "Findings"),
    ]
    assert [it["text"] for name, it in events if name == "token"] == ["No ", "tumour."] * 2
    assert (report["number"], report["status"], report["object"]) == (1, "preliminary", "report")
    assert [it["answer"] for it in report["sections"]] == ["No tumour."] * 2
    assert {it["code"] for section in report["sections"] for it in section["warnings"]} == {"tiles_thinned"}
    assert (report["model"]["name"], report["model"]["encoder_id"]) == ("demo", ready.encoder_id)
    assert report["model"]["weights_digest"] == parts.models.default.weights_digest
    assert report["slide"]["metadata"]["case"] == "S26-0815"
    assert (await client.get(f"/v1/slides/{ready.id}/reports/1")).json() == report
    assert [len(body["messages"]) for body in vllm.bodies] == [1, 1], "no section knows of another"
    first, second = [it["conversation_id"] for it in report["sections"]]
    assert first != second
    assert (await client.get(f"/v1/conversations/{first}")).json()["turns"][0]["question"] == "What tissue is this?"


async def test_the_servers_own_template_is_asked_where_none_is_sent(
    client: httpx.AsyncClient, ready: SlideRecord
) -> None:
    answer = await client.post(f"/v1/slides/{ready.id}/reports", json={"stream": False})

    assert answer.status_code == 201
    assert [it["heading"] for it in answer.json()["sections"]] == ["Tissue", "Findings", "Assessment"]


async def test_reports_are_numbered_and_a_number_is_given_once(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    written = [await write(client, ready) for _ in range(3)]
    places = [it.headers["Location"] for it in written]
    assert [it.json()["number"] for it in written] == [1, 2, 3]
    assert await numbers(client, ready) == [3, 2, 1]

    for place in places[1:]:
        assert (await client.delete(place)).status_code == 204
        assert problem_of(await client.get(place), 404) == "not_found"
        assert problem_of(await client.delete(place), 404) == "not_found"

    assert (await write(client, ready)).json()["number"] == 4
    assert await numbers(client, ready) == [4, 1]


async def test_a_slide_has_a_bounded_number_of_reports(
    client: httpx.AsyncClient, ready: SlideRecord, monkeypatch: pytest.MonkeyPatch, vllm: FakeVllm
) -> None:
    monkeypatch.setattr("server.reports.report_record.MOST_REPORTS", 1)
    await write(client, ready)
    asked = len(vllm.requests)

    assert problem_of(await write(client, ready), 403) == "quota_exceeded"
    assert len(vllm.requests) == asked, "nothing is asked in vain"


@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("", "", "application/json"),
        ("", "text/html,*/*;q=0.8", "application/json"),
        ("", "application/pdf", "application/pdf"),
        ("", "application/json;q=0.5, application/fhir+json", "application/fhir+json"),
        ("", "text/plain;q=x, application/pdf;q=0.1", "application/pdf"),
        ("text", "application/pdf", "text/plain; charset=utf-8"),
        ("pdf", "", "application/pdf"),
        ("fhir", "", "application/fhir+json"),
    ],
)
async def test_a_report_is_read_in_the_form_that_is_asked_for(
    client: httpx.AsyncClient, ready: SlideRecord, query: str, accept: str, kind: str
) -> None:
    place = (await write(client, ready)).headers["Location"]

    answer = await client.get(place, params={"format": query} if query else {}, headers={"Accept": accept})

    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Content-Disposition"].startswith(f'inline; filename="report-{ready.id[:12]}-1.')
    if kind == "application/fhir+json":
        require_r4(answer.json())
        assert answer.json()["status"] == "preliminary"
    elif kind == "application/pdf":
        assert answer.content.startswith(b"%PDF-")
    else:
        assert "No tumour." in answer.text


async def test_an_unknown_form_is_refused(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    place = (await write(client, ready)).headers["Location"]

    assert problem_of(await client.get(place, params={"format": "docx"}), 422) == "invalid_request"
    for number in ("0", "x", "1000000"):
        assert problem_of(await client.get(f"/v1/slides/{ready.id}/reports/{number}"), 422) == "invalid_request"


async def test_a_section_that_breaks_off_leaves_nothing(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm
) -> None:
    def second_breaks(request: httpx.Request) -> httpx.Response:
        if "What is seen?" in request.content.decode():
            return vllm.stream(sse(token_chunk("Half "), done=False))
        vllm.script = None
        answer = vllm.handle(request)
        vllm.script = second_breaks
        return answer

    vllm.script = second_breaks
    events = events_of(await client.post(f"/v1/slides/{ready.id}/reports", json=TEMPLATE))

    assert [name for name, _ in events][-1] == "error"
    assert events[-1][1]["code"] == "language_model_failed"
    assert problem_of(await write(client, ready), 502) == "language_model_failed"
    assert await numbers(client, ready) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"sections": []}, 422),
        ({"sections": [TEMPLATE["sections"][0]] * 2}, 422),
        ({"sections": [{"heading": "A", "question": " "}]}, 422),
        ({"sections": [TEMPLATE["sections"][0], {"heading": "B", "question": "x" * 100_000}]}, 413),
        ({"sections": [{"heading": "A", "question": "B?", "choices": ["Yes"]}]}, 422),
        ({"sections": [{"heading": " ", "question": "B?"}]}, 422),
        ({"title": ""}, 422),
        ({"title": "x" * 201}, 422),
        ({"sections": [{"heading": f"{n}", "question": "B?"} for n in range(21)]}, 422),
        ({"model": "none"}, 422),
        ({"status": "final"}, 422),
    ],
)
async def test_a_template_that_cannot_be_asked_is_refused_before_anything_is(
    client: httpx.AsyncClient, ready: SlideRecord, vllm: FakeVllm, body: dict[str, Any], status: int
) -> None:
    problem_of(await write(client, ready, **body), status)

    assert vllm.requests == []
    assert await numbers(client, ready) == []


async def test_a_slide_that_cannot_be_asked_has_no_report(client: httpx.AsyncClient, parts: Parts) -> None:
    waiting = await stored_slide(parts, "waiting")

    assert problem_of(await write(client, waiting), 409) == "slide_not_ready"
    assert problem_of(await client.post(f"/v1/slides/{'0' * 64}/reports", json={}), 404) == "not_found"
    assert problem_of(await client.get(f"/v1/slides/{'0' * 64}/reports"), 404) == "not_found"


async def test_a_slide_that_is_encoded_anew_meanwhile_gets_no_mixed_report(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts, vllm: FakeVllm
) -> None:
    handle = vllm.handle

    def encoded_anew(request: httpx.Request) -> httpx.Response:
        vllm.script = None
        path = parts.store.local_root / ready.paths.record  # type: ignore[operator]
        path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"generation": "another"}))
        return handle(request)

    vllm.script = encoded_anew

    assert problem_of(await write(client, ready), 409) == "report_interrupted"
    assert await numbers(client, ready) == []


async def test_reports_go_with_their_slide_and_are_counted(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    before = (await client.get("/v1/usage")).json()["stored_bytes"]
    place = (await write(client, ready)).headers["Location"]
    await write(client, ready)
    assert (await client.get("/v1/usage")).json()["stored_bytes"] > before
    await client.delete(place)

    await client.delete(f"/v1/slides/{ready.id}")

    assert problem_of(await client.get(place), 404) == "not_found"
    assert await parts.store.keys_after(ready.paths.folder, "", 9) == []


async def test_a_damaged_report_is_listed_refused_and_can_be_deleted(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    place = (await write(client, ready)).headers["Location"]
    await parts.store.put(f"{ready.paths.reports}/000001.json", b"{")

    (entry,) = (await client.get(f"/v1/slides/{ready.id}/reports")).json()["data"]
    assert (entry["number"], entry["error"]["code"]) == (1, "damaged_record")
    assert problem_of(await client.get(place), 409) == "damaged_record"
    assert (await client.delete(place)).status_code == 204
    assert (await write(client, ready)).json()["number"] == 2


async def test_sent_again_with_a_key_it_is_written_once(client: httpx.AsyncClient, ready: SlideRecord) -> None:
    first, again = [
        await client.post(
            f"/v1/slides/{ready.id}/reports", json=TEMPLATE | {"stream": False}, headers={"Idempotency-Key": "one"}
        )
        for _ in range(2)
    ]

    assert again.headers["Idempotent-Replayed"] == "true"
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.headers["Location"] == again.headers["Location"]
    assert await numbers(client, ready) == [1]
    streamed = await client.post(f"/v1/slides/{ready.id}/reports", json=TEMPLATE, headers={"Idempotency-Key": "two"})
    assert problem_of(streamed, 422) == "invalid_request"


async def test_each_section_takes_one_of_the_rate(make_app: Callable[..., FastAPI], ready: SlideRecord) -> None:
    async with client_of(make_app(rate_limits=RateLimits(questions=1))) as client:
        assert problem_of(await write(client, ready), 429) == "rate_limited"
        assert await numbers(client, ready) == []


async def test_receivers_are_told_where_a_report_is_and_nothing_of_it(
    client: httpx.AsyncClient, ready: SlideRecord, parts: Parts
) -> None:
    report = (await write(client, ready)).json()

    ((_, event),) = await parts.outbox.oldest(9)

    assert event is not None
    assert (event.type, event.tenant, event.slide_id) == ("report.ready", "default", ready.id)
    assert json.loads(event.body)["data"] == {
        "slide_id": ready.id,
        "tenant": "default",
        "report": 1,
        "report_id": report["id"],
        "model": "demo",
        "status": "preliminary",
    }
