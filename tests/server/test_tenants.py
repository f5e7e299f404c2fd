"""What one tenant has does not exist for another: over every route of the OpenAPI document, so that a route without a
rule here fails."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api_parts import client_of, stored_slide
from fastapi import FastAPI
from webhook_receiver import endpoint_at

from server.api.parts import Parts
from server.identity.api_keys import create_key
from server.slides.instance_shelf import StoredInstance, StoredSeries
from server.slides.progress import Event
from server.slides.region_record import RegionRecord
from server.slides.slide_record import SlideRecord, now
from server.uploads.dicom.import_record import new_import

PUBLIC = {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")}
# Routes that name no object of a tenant; each has a test of its own below.
WITHOUT_OBJECT = {
    ("GET", "/v1/slides"),
    ("POST", "/v1/slides"),
    ("OPTIONS", "/v1/uploads"),
    ("POST", "/v1/uploads"),
    ("POST", "/v1/dicomweb/studies"),
    ("POST", "/v1/dicomweb/studies/{study_uid}"),
    ("GET", "/v1/dicomweb/waiting"),
    # tests/server/api/routes/test_dicom_objects.py
    ("GET", "/v1/dicomweb/studies"),
    ("GET", "/v1/dicomweb/series"),
    ("GET", "/v1/dicomweb/instances"),
    ("GET", "/v1/dicomweb/studies/{study_uid}/series"),
    ("GET", "/v1/dicomweb/studies/{study_uid}/instances"),
    ("GET", "/v1/dicomweb/studies/{study_uid}/series/{series_uid}/instances"),
    ("POST", "/v1/imports"),
    ("GET", "/v1/imports"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/caller"),
    ("GET", "/v1/feedback"),
    ("GET", "/v1/webhooks"),
}
DICOM_STUDY, DICOM_SERIES = "/v1/dicomweb/studies/{study_uid}", "/v1/dicomweb/studies/{study_uid}/series/{series_uid}"
DICOM_INSTANCE = DICOM_SERIES + "/instances/{instance_uid}"
REGION = "reg_" + "0c" * 16
UNKNOWN_SLIDE, UNKNOWN_CONVERSATION = "0" * 64, "conv_" + "x" * 22


@dataclass(frozen=True)
class Ids:
    """An object of each kind that a route can name."""

    slide: str
    conversation: str
    region: str = REGION
    upload: str = "0" * 64
    endpoint: str = "theirs"
    study: str = "1.2"
    series: str = "1.2.3"
    instance: str = "1.2.3.4"
    pulled: str = "7a" * 16
    case: str = "theirs"
    report: int = 1


UNKNOWN = Ids(
    UNKNOWN_SLIDE,
    UNKNOWN_CONVERSATION,
    endpoint="unknown",
    study="9",
    series="9.1",
    instance="9.2",
    pulled="0" * 32,
    case="unknown",
    report=9,
)
# How to ask for somebody's object over each route: a JSON body, or None.
RULES: dict[tuple[str, str], Callable[[Ids], dict[str, Any] | None]] = {
    ("GET", "/v1/slides/{slide_id}"): lambda ids: None,
    ("DELETE", "/v1/slides/{slide_id}"): lambda ids: None,
    ("PATCH", "/v1/slides/{slide_id}"): lambda ids: {"stain": "HE"},
    ("GET", "/v1/cases"): lambda ids: None,
    ("POST", "/v1/cases/questions"): lambda ids: {"case": ids.case, "question": "Why?", "stream": False},
    ("POST", "/v1/slides/{slide_id}/reports"): lambda ids: {"stream": False},
    ("GET", "/v1/slides/{slide_id}/reports"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/reports/{number}"): lambda ids: None,
    ("DELETE", "/v1/slides/{slide_id}/reports/{number}"): lambda ids: None,
    ("POST", "/v1/slides/{slide_id}/encode"): lambda ids: {},
    ("GET", "/v1/slides/{slide_id}/events"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/thumbnail"): lambda ids: None,
    ("HEAD", "/v1/slides/{slide_id}/thumbnail"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/tiles.dzi"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/tiles/{level}/{column}_{row}.jpg"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/features"): lambda ids: None,
    ("HEAD", "/v1/slides/{slide_id}/features"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/places"): lambda ids: None,
    ("GET", "/v1/slides/{slide_id}/levels"): lambda ids: None,
    ("HEAD", "/v1/slides/{slide_id}/levels"): lambda ids: None,
    ("PUT", "/v1/slides/{slide_id}/features"): lambda ids: {},  # no form: refused, but only when the slide is one's own
    ("POST", "/v1/slides/{slide_id}/regions"): lambda ids: {"polygon": [[0, 0], [9, 0], [9, 9]]},
    ("GET", "/v1/slides/{slide_id}/regions/{region_id}"): lambda ids: None,
    ("POST", "/v1/slides/{slide_id}/questions"): lambda ids: {
        "question": "Why?",
        "conversation_id": ids.conversation,
    },
    ("POST", "/v1/slides/{slide_id}/evidence"): lambda ids: {"conversation_id": ids.conversation, "turn": 1},
    ("HEAD", "/v1/uploads/{upload_id}"): lambda ids: None,
    ("GET", "/v1/uploads/{upload_id}"): lambda ids: None,
    ("PATCH", "/v1/uploads/{upload_id}"): lambda ids: None,
    ("DELETE", "/v1/uploads/{upload_id}"): lambda ids: None,
    ("POST", "/v1/uploads/{upload_id}"): lambda ids: None,
    ("POST", "/v1/uploads/slides"): lambda ids: {"slide": "theirs"},
    ("GET", "/v1/webhooks/{endpoint}/dead"): lambda ids: None,
    ("POST", "/v1/webhooks/{endpoint}/replay"): lambda ids: {},
    ("GET", "/v1/conversations"): lambda ids: None,
    ("GET", "/v1/conversations/{conversation_id}"): lambda ids: None,
    ("DELETE", "/v1/conversations/{conversation_id}"): lambda ids: None,
    ("PUT", "/v1/conversations/{conversation_id}/turns/{turn}/feedback"): lambda ids: {"verdict": "agree"},
    ("GET", "/v1/conversations/{conversation_id}/turns/{turn}/feedback"): lambda ids: None,
    ("DELETE", "/v1/conversations/{conversation_id}/turns/{turn}/feedback"): lambda ids: None,
    ("POST", "/v1/chat/completions"): lambda ids: chat(ids.slide),
    ("GET", "/v1/imports/{import_id}"): lambda ids: None,
    ("GET", "/v1/imports/{import_id}/events"): lambda ids: None,
    ("GET", DICOM_STUDY): lambda ids: None,
    ("GET", f"{DICOM_STUDY}/metadata"): lambda ids: None,
    ("GET", DICOM_SERIES): lambda ids: None,
    ("GET", f"{DICOM_SERIES}/metadata"): lambda ids: None,
    ("GET", f"{DICOM_SERIES}/rendered"): lambda ids: None,
    ("GET", f"{DICOM_SERIES}/thumbnail"): lambda ids: None,
    ("GET", DICOM_INSTANCE): lambda ids: None,
    ("GET", f"{DICOM_INSTANCE}/metadata"): lambda ids: None,
    ("GET", f"{DICOM_INSTANCE}/rendered"): lambda ids: None,
    ("GET", f"{DICOM_INSTANCE}/thumbnail"): lambda ids: None,
    ("GET", f"{DICOM_INSTANCE}/frames/{{frame_numbers}}"): lambda ids: None,
}

# Where the object stands in the query.
QUERIES: dict[tuple[str, str], Callable[[Ids], dict[str, str]]] = {
    ("GET", "/v1/conversations"): lambda ids: {"slide": ids.slide},
    ("GET", "/v1/cases"): lambda ids: {"case": ids.case},
}

# Without which a route looks at no object.
TUS = {
    "Tus-Resumable": "1.0.0",
    "Upload-Offset": "0",
    "Content-Type": "application/offset+octet-stream",
    "X-HTTP-Method-Override": "PATCH",
}
HEADERS = {operation: TUS for operation in RULES if operation[1] == "/v1/uploads/{upload_id}"}


def chat(slide: str) -> dict[str, Any]:
    part = {"type": "slide", "slide": {"id": slide}}
    return {"model": "demo", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "Why?"}]}]}


def operations(app: FastAPI) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}


async def ask_for(client: httpx.AsyncClient, operation: tuple[str, str], ids: Ids) -> httpx.Response:
    method, template = operation
    named = {"slide_id": ids.slide, "conversation_id": ids.conversation, "turn": 1}
    dicom = {"study_uid": ids.study, "series_uid": ids.series, "instance_uid": ids.instance, "frame_numbers": "1"}
    dicom["import_id"] = ids.pulled
    named["number"] = ids.report
    path = template.format(
        **named, **dicom, region_id=ids.region, upload_id=ids.upload, endpoint=ids.endpoint, level=0, column=0, row=0
    )
    query = QUERIES[operation](ids) if operation in QUERIES else None
    headers = {**HEADERS.get(operation, {}), "X-Request-Id": "5e" * 8}  # which stands in the body of an error too
    return await client.request(method, path, json=RULES[operation](ids), params=query, headers=headers)


@pytest.fixture
def guarded(make_app: Callable[..., FastAPI]) -> FastAPI:
    """An app that asks everybody for a key."""
    return make_app(require_key=True, webhooks=(endpoint_at("https://lis.example/", name="theirs", tenant="a"),))


@pytest.fixture
async def keys(guarded: FastAPI) -> dict[str, str]:
    store = guarded.state.parts.store
    return {tenant: await create_key(store, tenant) for tenant in ("a", "b")}


@pytest.fixture
async def theirs(guarded: FastAPI, keys: dict[str, str]) -> Ids:
    """A ready slide of tenant a with a conversation, a region and events."""
    parts: Parts = guarded.state.parts
    record = await stored_slide(parts, "theirs", tenant="a", ready=True, study_uid="1.2", series_uid="1.2.3")
    await note_instance(parts, record)
    pulled = new_import("a", "pacs", "1.2", "1.2.3").changed(status="done", slide_id=record.id)
    await parts.imports.keep(pulled)
    await parts.progress.append("a", record.id, Event("ready", {}))
    corners = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0))
    region = RegionRecord(
        id=REGION,
        slide_id=record.id,
        encoder_id=record.encoder_id,
        outline=corners,
        tiles=16,
        area_mm2=None,
        created_at=now(),
        used_at=now(),
    )
    await parts.regions.keep(record.paths, region)
    async with client_of(guarded, keys["a"]) as client:
        body = {"question": "Why?", "stream": False}
        asked = await client.post(f"/v1/slides/{record.id}/questions", json=body)
        turn = f"/v1/conversations/{asked.json()['conversation_id']}/turns/1"
        await client.put(f"{turn}/feedback", json={"verdict": "unsure", "words": "theirs"})
        await client.patch(f"/v1/slides/{record.id}", json={"case": "theirs"})
        await client.post(f"/v1/slides/{record.id}/reports", json={"stream": False})
        of_slide = {"Upload-Length": "100", "Upload-Metadata": "slide dGhlaXJz,path YS5kY20="}
        upload = await client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0"} | of_slide)
    upload_id = upload.headers["Location"].rsplit("/", 1)[-1]
    return Ids(record.id, asked.json()["conversation_id"], upload=upload_id, pulled=pulled.id)


async def note_instance(parts: Parts, record: SlideRecord) -> None:
    """The slide is a DICOM series of one instance of one frame."""
    instance = StoredInstance(
        sop_class="1.2.840.10008.5.1.4.1.1.77.1.6",
        sop_instance="1.2.3.4",
        transfer_syntax="1.2.840.10008.1.2.1",
        sha256=record.id,
        size_bytes=record.size_bytes,
        frame_count=1,
        has_metadata=True,
        attributes={},
    )
    kept = StoredSeries(study="1.2", series="1.2.3", instances=(instance,))
    await parts.store.put(record.paths.dicom_series, kept.model_dump_json().encode())
    await parts.store.put(record.paths.dicom_metadata(record.id), b"{}")
    await parts.store.put(record.paths.dicom_frames(record.id), struct.pack("<qq", 0, record.size_bytes))
    await parts.series.note(record)


def test_every_route_has_a_rule(guarded: FastAPI) -> None:
    assert operations(guarded) == PUBLIC | WITHOUT_OBJECT | set(RULES)


@pytest.mark.parametrize("operation", RULES, ids=" ".join)
async def test_another_tenants_object_is_as_if_it_never_existed(
    guarded: FastAPI, keys: dict[str, str], theirs: Ids, operation: tuple[str, str]
) -> None:
    async with client_of(guarded, keys["b"]) as b, client_of(guarded, keys["a"]) as a:
        refused = await ask_for(b, operation, theirs)
        unknown = await ask_for(b, operation, UNKNOWN)
        still_there = await a.get(f"/v1/slides/{theirs.slide}")
        still_remembered = await a.get(f"/v1/conversations/{theirs.conversation}")

    assert (refused.status_code, unknown.status_code) == (404, 404)
    assert refused.content == unknown.content
    assert without_id(refused.headers) == without_id(unknown.headers)
    assert still_there.json()["status"] == "ready"
    assert len(still_remembered.json()["turns"]) == 1


def without_id(headers: httpx.Headers) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "x-request-id"}


@pytest.mark.parametrize("operation", RULES, ids=" ".join)
async def test_its_own_tenant_does_get_it(
    guarded: FastAPI, keys: dict[str, str], theirs: Ids, operation: tuple[str, str]
) -> None:
    async with client_of(guarded, keys["a"]) as client:
        answer = await ask_for(client, operation, theirs)

    assert answer.status_code not in (401, 404)


@pytest.mark.parametrize("operation", sorted(set(RULES) | WITHOUT_OBJECT), ids=" ".join)
async def test_nobody_gets_anything_without_a_key(guarded: FastAPI, theirs: Ids, operation: tuple[str, str]) -> None:
    method, template = operation
    named = {
        "slide_id": theirs.slide,
        "conversation_id": theirs.conversation,
        "model": "demo",
        "turn": 1,
        "study_uid": "1.2",
        "series_uid": "1.2.3",
        "instance_uid": "1.2.3.4",
        "frame_numbers": "1",
        "import_id": theirs.pulled,
        "number": theirs.report,
    }
    path = template.format(
        **named, region_id=theirs.region, upload_id=theirs.upload, endpoint="theirs", level=0, column=0, row=0
    )

    async with client_of(guarded) as client:
        assert (await client.request(method, path, json={})).status_code == 401


async def test_a_conversation_of_another_tenant_cannot_be_continued(
    guarded: FastAPI, keys: dict[str, str], theirs: Ids
) -> None:
    own = await stored_slide(guarded.state.parts, "theirs", tenant="b", ready=True)
    async with client_of(guarded, keys["b"]) as client:
        answers = [
            await client.post(
                f"/v1/slides/{own.id}/questions",
                json={"question": "Why?", "conversation_id": conversation},
                headers={"X-Request-Id": "5e" * 8},
            )
            for conversation in (theirs.conversation, UNKNOWN_CONVERSATION)
        ]

    assert own.id == theirs.slide
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content


async def test_a_list_holds_only_ones_own(guarded: FastAPI, keys: dict[str, str], theirs: Ids) -> None:
    async with client_of(guarded, keys["b"]) as b, client_of(guarded, keys["a"]) as a:
        assert (await b.get("/v1/slides")).json()["data"] == []
        assert [slide["id"] for slide in (await a.get("/v1/slides")).json()["data"]] == [theirs.slide]


async def test_an_export_of_feedback_holds_only_ones_own(guarded: FastAPI, keys: dict[str, str], theirs: Ids) -> None:
    async with client_of(guarded, keys["b"]) as b, client_of(guarded, keys["a"]) as a:
        assert (await b.get("/v1/feedback")).content == b""
        assert (await a.get("/v1/feedback")).json()["words"] == "theirs"


async def test_the_same_content_is_new_to_another_tenant(
    guarded: FastAPI, keys: dict[str, str], sample_slide: bytes
) -> None:
    answers = []
    for tenant in ("a", "b"):
        async with client_of(guarded, keys[tenant]) as client:
            answers.append(await client.post("/v1/slides", files={"file": (f"{tenant}.svs", sample_slide)}))
            await client.delete(f"/v1/slides/{UNKNOWN_SLIDE}")

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert [answer.json()["filename"] for answer in answers] == ["a.svs", "b.svs"]


async def test_deleting_ones_own_copy_leaves_the_others(guarded: FastAPI, keys: dict[str, str], theirs: Ids) -> None:
    own = await stored_slide(guarded.state.parts, "theirs", tenant="b", ready=True)
    async with client_of(guarded, keys["b"]) as b, client_of(guarded, keys["a"]) as a:
        assert (await b.delete(f"/v1/slides/{own.id}")).status_code == 204
        assert (await a.get(f"/v1/slides/{theirs.slide}")).json()["status"] == "ready"
        assert (await a.get(f"/v1/conversations/{theirs.conversation}")).status_code == 200
