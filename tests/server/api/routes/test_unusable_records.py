"""Records that are damaged, another slide's, or a newer release's: each stands alone, and its owner gets rid of it."""

import hashlib
import json
from collections.abc import Callable

import httpx
import pytest
from api_parts import problem_of, stored_slide, upload
from fakes import sample_embedding

from encoders.embedding_file import to_bytes
from server.api.parts import Parts
from server.app import build_reconciler
from server.slides.slide_record import SlideRecord

Change = Callable[[dict[str, object]], bytes]


def changed(**fields: object) -> Change:
    return lambda record: json.dumps({**record, **fields}).encode()


DAMAGES: dict[str, tuple[Change, str, str]] = {
    # how it is written, the code, the file name that is shown
    "empty": (lambda record: b"", "damaged_record", "slide"),
    "cut": (lambda record: json.dumps(record)[:-9].encode(), "damaged_record", "slide"),
    "no record": (lambda record: b"[7]", "damaged_record", "slide"),
    "a field of another type": (changed(width="wide"), "damaged_record", "bad.svs"),
    "nothing that can be used": (changed(filename=[], created_at=0.5, width={}), "damaged_record", "slide"),
    "another tenant's": (changed(tenant="other"), "damaged_record", "slide"),
    "another slide's": (changed(id="0" * 64), "damaged_record", "slide"),
    "a newer release's": (changed(format_version=2, mpp={"x": 0.25}), "newer_record", "bad.svs"),
}


async def spoiled(parts: Parts, change: Change) -> SlideRecord:
    record = await stored_slide(parts, "bad")
    content = await parts.store.get(record.paths.record)
    assert content is not None
    await parts.store.put(record.paths.record, change(json.loads(content)))
    return record


@pytest.mark.parametrize("damage", DAMAGES)
async def test_one_bad_record_does_not_take_the_others_down(
    client: httpx.AsyncClient, parts: Parts, damage: str
) -> None:
    change, code, filename = DAMAGES[damage]
    good = await stored_slide(parts, "good", ready=True)
    bad = await spoiled(parts, change)

    listed = (await client.get("/v1/slides")).json()["data"]

    shown = {slide["id"]: slide for slide in listed}
    assert shown[good.id]["status"] == "ready"
    seen = shown[bad.id]
    assert (seen["status"], seen["error"]["code"], seen["filename"]) == ("failed", code, filename)
    assert seen["size_bytes"] == 5  # from the record, or what the store has
    assert (await client.get(f"/v1/slides/{bad.id}")).json() == seen
    asked = await client.post(f"/v1/slides/{bad.id}/questions", json={"question": "What?"})
    assert problem_of(asked, 409) == code

    assert (await client.delete(f"/v1/slides/{bad.id}")).status_code == 204
    assert problem_of(await client.get(f"/v1/slides/{bad.id}"), 404) == "not_found"
    assert await parts.store.objects(bad.paths.folder) == []


async def test_a_reconciler_goes_on_behind_a_bad_record(parts: Parts, client: httpx.AsyncClient) -> None:
    bad = await spoiled(parts, DAMAGES["cut"][0])
    later = await stored_slide(parts, "later")

    reconciler = build_reconciler(parts)
    await reconciler.round()
    await reconciler.round()  # the second one removes folders without a record

    assert await parts.jobs.find(later) is not None
    assert await parts.store.exists(bad.paths.record)


async def test_what_a_newer_release_added_is_kept(parts: Parts, client: httpx.AsyncClient) -> None:
    record = await spoiled(parts, changed(stain="PAS", status="odd", filename="good.svs"))

    answer = await client.post(f"/v1/slides/{record.id}/encode", json={"mpp": 0.5})

    assert answer.status_code == 202
    assert (answer.json()["stain"], answer.json()["status"]) == (None, "queued")
    stored = json.loads(await parts.store.get(record.paths.record) or b"")
    assert (stored["stain"], stored["mpp_override"]) == ("PAS", 0.5)
    assert "format_version" not in stored  # a release from before there was one reads it


async def test_an_upload_replaces_a_damaged_record(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    slide = (await upload(client, sample_slide)).json()
    record = await parts.slides.require("default", slide["id"])
    await parts.store.put(record.paths.record, b"{")

    again = await upload(client, sample_slide)

    assert again.status_code == 202
    assert (again.json()["status"], again.json()["error"]) == ("queued", None)
    assert (await parts.slides.require("default", record.id)).generation != record.generation


async def test_an_upload_leaves_a_newer_record_alone(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    slide = (await upload(client, sample_slide)).json()
    record = await parts.slides.require("default", slide["id"])
    newer = json.dumps({"format_version": 2, "id": record.id, "tenant": "default"}).encode()
    await parts.store.put(record.paths.record, newer)

    again = await upload(client, sample_slide)

    assert (again.status_code, again.json()["error"]["code"]) == (200, "newer_record")
    assert await parts.store.get(record.paths.record) == newer


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
async def test_an_upload_mends_a_source(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes, damage: str
) -> None:
    slide_id = (await upload(client, sample_slide)).json()["id"]
    assert (await upload(client, sample_slide)).status_code == 200
    record = await parts.slides.require("default", slide_id)
    key = record.paths.source
    if damage == "gone":
        await parts.store.delete(key)
    else:
        await parts.store.put(key, sample_slide[:-1] + (b"?" if damage == "flipped" else b""))
    failure = {"code": "unreadable_slide", "detail": "The slide cannot be read."}
    await parts.slides.update(record, lambda it: SlideRecord.model_validate(it.model_dump() | {"error": failure}))

    mended = await upload(client, sample_slide)

    assert (mended.status_code, mended.json()["status"], mended.json()["error"]) == (202, "queued", None)
    assert hashlib.sha256(await parts.store.get(key) or b"").hexdigest() == slide_id
    assert await parts.jobs.find(record) is not None
    assert (await upload(client, sample_slide)).status_code == 200


async def test_a_slide_that_is_ready_stays_ready_when_its_source_is_mended(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    slide_id = (await upload(client, sample_slide)).json()["id"]
    record = await parts.slides.require("default", slide_id)
    await parts.embeddings.publish(record, to_bytes(sample_embedding(slide_id, record.encoder_id)))
    await parts.store.delete(record.paths.source)

    assert (await upload(client, sample_slide)).json()["status"] == "ready"
    assert await parts.store.exists(record.paths.source)
