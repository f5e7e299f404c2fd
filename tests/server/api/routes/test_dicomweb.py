"""/v1/dicomweb through the whole API: a real store, a real Redis, a real reader process; and dicomweb-client."""

import asyncio
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from api_parts import client_of, problem_of, stored_slide
from dicom_series import STOW_HEADERS, as_label, in_parts, series_of, stow_body, study_of, write_series
from fastapi import FastAPI
from served_app import request_of, served

from server.api.dependencies import receive_series, receive_upload
from server.api.parts import Parts
from server.identity.api_keys import create_key
from server.upkeep.series_watch import SeriesWatch

STUDIES = "/v1/dicomweb/studies"
SHARED = Path(__file__).resolve().parents[5] / "shared" / "slides"
REFERENCED, FAILED, OTHER = "00081199", "00081198", "0008119A"


@pytest.fixture
def app(make_app: Callable[..., FastAPI]) -> FastAPI:
    """A series is quiet at once."""
    return make_app(dicom_quiet_s=0.0)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "series")


async def store(client: httpx.AsyncClient, paths: list[Path], address: str = STUDIES) -> httpx.Response:
    return await client.post(address, content=stow_body([it.read_bytes() for it in paths]), headers=STOW_HEADERS)


def named(answer: httpx.Response, sequence: str) -> dict[str, int | None]:
    """The instances of a sequence of the answer, and the reason of each."""
    items = answer.json().get(sequence, {}).get("Value", [])
    return {
        it["00081155"]["Value"][0]: next((it[tag]["Value"][0] for tag in ("00081196", "00081197") if tag in it), None)
        for it in items
    }


def instance_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


async def slides(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/v1/slides")).json()["data"]
    return found


async def waiting(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/v1/dicomweb/waiting")).json()["data"]
    return found


async def test_a_series_becomes_one_slide_when_it_is_quiet(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    answers = [await store(client, [path]) for path in series]
    before = await waiting(client)
    await receive_series(parts).make_due()

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["Content-Type"] == "application/dicom+json"
    assert [named(answer, REFERENCED) for answer in answers] == [{instance_of(path): None} for path in series]
    assert [(it["status"], it["instances"], it["slide_in_s"]) for it in before] == [("waiting", 2, 0)]
    (slide,) = await slides(client)
    uid = series_of(series[0])
    assert (slide["series_uid"], slide["study_uid"], slide["vendor"]) == (uid, study_of(series[0]), "dicom")
    assert (slide["width"], slide["height"], slide["size_bytes"]) == (512, 512, sum(it.stat().st_size for it in series))
    assert (await client.get(f"/v1/slides/dicom:{uid}")).json() == slide
    assert (await parts.jobs.depth("routine")).queued == 1
    assert await waiting(client) == []
    assert list(parts.store.staging_dir.iterdir()) == []
    assert (await client.get("/v1/usage")).json()["stored_bytes"] >= slide["size_bytes"]


async def test_the_same_series_again_is_the_same_slide(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    story = receive_series(parts)
    await store(client, series)
    again_before = await store(client, series)
    await story.make_due()
    again_after = await store(client, series)
    await story.make_due()

    assert (again_before.status_code, again_after.status_code) == (200, 200)
    assert len(named(again_after, REFERENCED)) == 2
    assert len(await slides(client)) == 1
    assert await waiting(client) == []


async def test_an_instance_that_differs_from_the_one_that_is_there_is_refused(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    await store(client, series)
    changed = pydicom.dcmread(series[1])
    changed.ImagedVolumeDepth = 0.002
    changed.save_as(series[1], enforce_file_format=True)
    while_waiting = await store(client, [series[1]])
    await receive_series(parts).make_due()
    afterwards = await store(client, series)

    assert (while_waiting.status_code, named(while_waiting, FAILED)) == (409, {instance_of(series[1]): 0x0111})
    assert (afterwards.status_code, named(afterwards, FAILED)) == (202, {instance_of(series[1]): 0x0111})
    assert named(afterwards, REFERENCED) == {instance_of(series[0]): None}


async def test_an_incomplete_series_waits_and_says_what_is_missing(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    story, uid = receive_series(parts), series_of(series[0])
    halves = in_parts(series[0], 2)
    await store(client, [series[1]])
    await story.make_due()
    (alone,) = await waiting(client)
    await store(client, [halves[1]])
    await story.make_due()
    (with_half,) = await waiting(client)
    asked = await client.get(f"/v1/slides/dicom:{uid}")
    forced = await client.post("/v1/uploads/slides", json={"slide": f"dicom:{uid}"})
    await store(client, [halves[0]])
    await story.make_due()

    assert (alone["status"], alone["missing"]) == ("incomplete", ["The level of full resolution is missing."])
    assert with_half["missing"] == ["Part 1 of 2 of a level is missing."]
    assert with_half["slide_in_s"] is None
    assert problem_of(asked, 404) == "not_found"
    assert "Part 1 of 2 of a level is missing." in asked.json()["detail"]
    assert problem_of(forced, 409) == "upload_incomplete"
    (slide,) = await slides(client)
    assert (slide["width"], slide["series_uid"]) == (512, uid)


async def test_who_knows_that_a_series_is_complete_need_not_wait(
    make_app: Callable[..., FastAPI], series: list[Path]
) -> None:
    async with client_of(make_app(dicom_quiet_s=3600.0)) as client:
        await store(client, series)
        uid = series_of(series[0])
        too_early = await client.get(f"/v1/slides/dicom:{uid}")
        made = await client.post("/v1/uploads/slides", json={"slide": f"dicom:{uid}", "files": 2})

        assert "no more of it has come for a while" in too_early.json()["detail"]
        assert (made.status_code, made.json()["series_uid"]) == (202, uid)


async def test_labels_and_other_objects_are_not_kept(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    label = as_label(series[0])
    other = pydicom.dcmread(series[1])
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    segmentation = series[0].with_name("segmentation.dcm")
    other.save_as(segmentation, enforce_file_format=True)
    text = series[0].with_name("text.dcm")
    text.write_bytes(b"no DICOM")

    answer = await store(client, [label, *series, segmentation, text])
    alone = await store(client, [segmentation])
    await receive_series(parts).make_due()

    assert (answer.status_code, alone.status_code) == (202, 409)
    assert named(answer, REFERENCED) == {instance_of(label): 0xB006} | {instance_of(it): None for it in series}
    assert named(answer, FAILED) == {instance_of(segmentation): 0x0122}
    assert answer.json()[OTHER]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC000]}}]
    (slide,) = await slides(client)
    assert slide["size_bytes"] == sum(it.stat().st_size for it in series)


async def test_instances_of_another_study_are_not_kept(client: httpx.AsyncClient, series: list[Path]) -> None:
    refused = await store(client, series, f"{STUDIES}/1.2.3")
    taken = await store(client, series, f"{STUDIES}/{study_of(series[0])}")

    assert (refused.status_code, set(named(refused, FAILED).values())) == (409, {0xA900})
    assert taken.status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/dicom", b"x", 415, "wrong_content_type"),
        ('multipart/related; type="application/dicom+json"; boundary=parts', b"x", 415, "wrong_content_type"),
        ("multipart/related", b"x", 422, "invalid_request"),
        (STOW_HEADERS["Content-Type"], b"x", 422, "invalid_request"),
        (STOW_HEADERS["Content-Type"], stow_body([]), 422, "invalid_request"),
        (STOW_HEADERS["Content-Type"], stow_body([b"x"])[:-10], 422, "invalid_request"),
        (STOW_HEADERS["Content-Type"], b"--parts\r\nContent-Type: image/jpeg\r\n\r\nx", 415, "wrong_content_type"),
    ],
)
async def test_another_body_is_refused_and_nothing_of_it_stays(
    client: httpx.AsyncClient, parts: Parts, content_type: str, body: bytes, status: int, code: str
) -> None:
    refused = await client.post(STUDIES, content=body, headers={"Content-Type": content_type})

    assert problem_of(refused, status) == code
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_a_quota_that_is_used_up_is_said_of_each_instance(
    make_app: Callable[..., FastAPI], series: list[Path]
) -> None:
    async with client_of(make_app(max_open_uploads_per_tenant=1)) as client:
        answer = await store(client, series)

    assert (answer.status_code, named(answer, FAILED)) == (202, {instance_of(series[1]): 0xA700})


async def test_what_opens_as_no_slide_is_said_and_may_be_sent_again(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    uid = series_of(series[0])
    broken = series[0].with_name("broken.dcm")
    dataset = pydicom.dcmread(series[0])
    dataset.NumberOfOpticalPaths = 2
    dataset.save_as(broken, enforce_file_format=True)
    await store(client, [broken])
    await receive_series(parts).make_due()
    (refused,) = await waiting(client)
    asked = await client.get(f"/v1/slides/dicom:{uid}")
    await store(client, series)
    await receive_series(parts).make_due()

    assert refused["status"] == "refused"
    assert refused["error"]["code"] in ("unreadable_slide", "unsupported_format")
    assert "is no slide" in asked.json()["detail"]
    assert (await client.get(f"/v1/slides/dicom:{uid}")).status_code == 200


@pytest.mark.parametrize("kind", ["question", "chat"])
async def test_questions_name_a_slide_by_its_series(client: httpx.AsyncClient, parts: Parts, kind: str) -> None:
    record = await stored_slide(parts, ready=True, series_uid="1.2.3", study_uid="1.2")
    await parts.series.note(record)
    asked = [request_of(kind, name, stream=False) for name in ("dicom:1.2.3", "dicom:9.9")]

    answered, unknown = [await client.post(path, json=body) for path, body in asked]

    listed = await client.get("/v1/conversations?slide=dicom:1.2.3")

    assert answered.status_code == 200, answered.text
    assert len(listed.json()["data"]) == (kind == "question")
    assert unknown.status_code == 404
    assert "no slide of this series" in unknown.text


async def test_a_deleted_slide_leaves_its_series_free(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    uid = series_of(series[0])
    for _ in range(2):
        assert (await store(client, series)).status_code == 200
        await receive_series(parts).make_due()
        assert (await client.delete(f"/v1/slides/dicom:{uid}")).status_code == 204
        assert (await client.get(f"/v1/slides/dicom:{uid}")).status_code == 404
    assert await parts.store.folders("tenants/default/series") == []


async def test_a_series_that_redis_forgot_is_found_again(
    client: httpx.AsyncClient, parts: Parts, series: list[Path]
) -> None:
    story = receive_series(parts)
    await store(client, series)
    await parts.redis.flushall()
    await SeriesWatch(parts.redis, parts.slides, story).walk()
    await story.make_due()

    assert len(await slides(client)) == 1


async def test_another_tenants_series_does_not_exist(make_app: Callable[..., FastAPI], series: list[Path]) -> None:
    app = make_app(require_key=True, dicom_quiet_s=0.0)
    parts: Parts = app.state.parts
    keys = [await create_key(parts.store, tenant) for tenant in ("a", "b")]
    async with client_of(app, keys[0]) as a, client_of(app, keys[1]) as b:
        await store(a, series)
        theirs = await waiting(b)
        await receive_series(parts).make_due()
        name = f"/v1/slides/dicom:{series_of(series[0])}"

        assert theirs == []
        assert ((await a.get(name)).status_code, (await b.get(name)).status_code) == (200, 404)


async def test_an_abandoned_series_is_removed(client: httpx.AsyncClient, parts: Parts, series: list[Path]) -> None:
    await store(client, [series[1]])
    (record,) = await parts.upload_shelf.of_making("default", (await parts.upload_shelf.makings("default"))[0])
    await parts.upload_shelf.keep(record.renewed(-10))
    await receive_upload(parts).sweep("default")

    assert await waiting(client) == []
    assert await parts.upload_shelf.makings("default") == []


async def test_dicomweb_client_stores_a_series(app: FastAPI, parts: Parts, series: list[Path]) -> None:
    dicomweb_client = pytest.importorskip("dicomweb_client")
    async with served(app) as client:
        web = dicomweb_client.DICOMwebClient(f"{client.base_url}/v1/dicomweb")
        datasets = [pydicom.dcmread(path) for path in series]
        answer = await asyncio.to_thread(web.store_instances, datasets, study_of(series[0]))
        await receive_series(parts).make_due()

        assert [it.ReferencedSOPInstanceUID for it in answer.ReferencedSOPSequence] == [
            instance_of(it) for it in series
        ]
        assert "FailedSOPSequence" not in answer
        assert (await client.get(f"/v1/slides/dicom:{series_of(series[0])}")).json()["width"] == 512


async def test_the_commands_of_the_integration_page_store_and_find_a_series(
    app: FastAPI, parts: Parts, series: list[Path]
) -> None:
    pytest.importorskip("dicomweb_client")
    page = (Path(__file__).resolve().parents[4] / "docs" / "integration.md").read_text()
    store_them, search_them = re.findall(r"^dicomweb_client .*", page, re.MULTILINE)
    async with served(app) as client:

        async def said(command: str) -> str:
            program = f"{Path(sys.executable).parent}/{command.replace('/mnt/archive/series', str(series[0].parent))}"
            shell = ["bash", "-c", program.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))]
            ran = await asyncio.to_thread(subprocess.run, shell, capture_output=True, text=True, timeout=240)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        await said(store_them)
        assert [it["instances"] for it in await waiting(client)] == [2]
        await receive_series(parts).make_due()
        (study,) = json.loads(await said(search_them))
        assert study["0020000D"]["Value"] == [study_of(series[0])]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/slides is not there")
async def test_published_instances_are_taken_as_they_are(client: httpx.AsyncClient, parts: Parts) -> None:
    boxes = [SHARED / "ospy_boxes_dicom" / name for name in ("boxes_0.dcm", "boxes_1.dcm")]
    stored = await store(client, [*boxes, SHARED / "highdicom_sm_image.dcm", SHARED / "ezwsi_multiframe_camelyon.dcm"])
    await receive_series(parts).make_due()

    assert stored.status_code == 202
    assert named(stored, REFERENCED)[instance_of(boxes[1])] == 0xB006  # a thumbnail
    assert sorted(slide["width"] for slide in await slides(client)) == [16, 50]
    assert {slide["id"] for slide in await slides(client)} == {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (boxes[0], SHARED / "highdicom_sm_image.dcm")
    }
    assert [it["missing"] for it in await waiting(client)] == [["The level of full resolution is missing."]]


async def test_the_audit_log_has_the_slides_id_and_not_the_series(
    make_app: Callable[..., FastAPI], tmp_path: Path
) -> None:
    app = make_app(audit_dir=tmp_path / "audit")
    record = await stored_slide(app.state.parts, series_uid="1.2.3", study_uid="1.2")
    await app.state.parts.series.note(record)
    async with client_of(app) as client:
        assert (await client.get("/v1/slides/dicom:1.2.3")).status_code == 200
        assert (await client.delete("/v1/slides/dicom:1.2.3")).status_code == 204
    (chain,) = (tmp_path / "audit").glob("*.jsonl")
    text = chain.read_text()

    assert text.count(record.id) == 3  # a look, a change that begins and is done
    assert "1.2.3" not in text
