"""/v1/imports: series that are pulled from archives, which may be away, refuse, lie or change their mind."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from api_parts import client_of, problem_of, until
from dicom_archive import Archive, running_archive
from dicom_series import STOW_HEADERS, as_label, in_parts, series_of, stow_body, study_of, write_series
from fastapi import FastAPI
from pydantic import ValidationError
from served_app import served

from server.api.dependencies import pull_series, receive_series
from server.api.parts import Parts
from server.app import build_import_watch
from server.errors import Overloaded
from server.identity.api_keys import create_key
from server.uploads.dicom.archive import DicomwebArchive

IMPORTS = "/v1/imports"


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "series")


@pytest.fixture
def archive(series: list[Path]) -> Iterator[Archive]:
    with running_archive([*series, as_label(series[0])]) as running:
        yield running


@pytest.fixture
def app(make_app: Callable[..., FastAPI], archive: Archive) -> FastAPI:
    return make_app(dicom_quiet_s=0.0, dicomweb_archives=(archive.described(),))


def asked(path: Path, **changes: str) -> dict[str, str]:
    return {"dicomweb": "pacs", "study": study_of(path), "series": series_of(path)} | changes


async def pull(client: httpx.AsyncClient, parts: Parts, body: dict[str, str]) -> dict[str, Any]:
    """The import, when one attempt at it is over."""
    begun = await client.post(IMPORTS, json=body)
    assert begun.status_code == 202, begun.text
    assert begun.headers["Location"] == f"{IMPORTS}/{begun.json()['id']}"
    await attempt(parts)
    found: dict[str, Any] = (await client.get(begun.headers["Location"])).json()
    return found


async def attempt(parts: Parts) -> None:
    for tenant, import_id in await parts.import_queue.take(5):
        await pull_series(parts).run(tenant, import_id)


async def events(client: httpx.AsyncClient, import_id: str) -> list[tuple[str, dict[str, Any]]]:
    text = (await client.get(f"{IMPORTS}/{import_id}/events")).text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


async def test_a_series_is_pulled_and_is_the_slide_that_was_pushed(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    pulled = await pull(client, parts, asked(series[0]))
    size_bytes = sum(path.stat().st_size for path in series)

    assert (pulled["status"], pulled["instances"], pulled["instances_done"]) == ("done", 2, 2)
    assert pulled["error"] is None
    assert pulled["size_bytes"] >= size_bytes
    slide = (await client.get(f"/v1/slides/dicom:{series_of(series[0])}")).json()
    assert (slide["id"], slide["width"], slide["size_bytes"]) == (pulled["slide_id"], 512, size_bytes)
    assert len(archive.fetched) == 2  # the label is not even fetched
    assert [name for name, _ in await events(client, pulled["id"])] == ["progress"] * 4 + ["done"]
    assert (await events(client, pulled["id"]))[-1][1] == {"slide_id": slide["id"]}
    assert (await client.get(IMPORTS)).json()["data"] == [pulled]
    assert list(parts.store.staging_dir.iterdir()) == []

    again = await pull(client, parts, asked(series[0]))
    body = stow_body([path.read_bytes() for path in series])
    pushed = await client.post("/v1/dicomweb/studies", content=body, headers=STOW_HEADERS)
    await receive_series(parts).make_due()
    assert (again["status"], again["slide_id"], pushed.status_code) == ("done", slide["id"], 200)
    assert len(archive.fetched) == 2  # nothing was fetched a second time
    assert len((await client.get("/v1/slides")).json()["data"]) == 1

    assert (await client.delete(f"/v1/slides/{slide['id']}")).status_code == 204
    assert (await pull(client, parts, asked(series[0])))["slide_id"] == slide["id"]
    assert len(archive.fetched) == 4


async def test_the_commands_of_the_integration_page_pull_a_series(
    app: FastAPI, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "integration.md").read_text()
    (block,) = [it for it in re.findall(r"```text\n(curl .*?)```", page, re.DOTALL) if "/v1/imports" in it]
    begin, follow = block.replace('"1.2.3.4"', f'"{series_of(series[0])}"').split("\ncurl -N")
    begin = begin.replace('"1.2.3"', f'"{study_of(series[0])}"')
    async with served(app) as client:

        async def said(command: str) -> str:
            known = {"EYEPIECE_URL": str(client.base_url).rstrip("/"), "EYEPIECE_KEY": "none"}
            shell = ["bash", "-c", command]
            ran = await asyncio.to_thread(
                subprocess.run, shell, capture_output=True, text=True, timeout=240, env=os.environ | known
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        begun = json.loads(await said(begin.replace("curl", "curl --silent")))
        await attempt(parts)
        told = await said(f"curl --silent -N{follow}".replace("/ID/", f"/{begun['id']}/"))

    assert begun["status"] == "queued"
    assert "event: done" in told


async def test_files_uploaded_under_the_same_names_are_the_same_slide(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in series]
    named = zip(uids, series, strict=True)
    files = [("file", (f"{uid}.dcm", path.read_bytes(), "application/dicom")) for uid, path in named]
    uploaded = await client.post("/v1/slides", files=files)
    pulled = await pull(client, parts, asked(series[0]))

    assert pulled["slide_id"] == uploaded.json()["id"]
    assert archive.fetched == []


async def test_what_is_missing_is_said_and_fetched_when_it_is_there(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    halves = in_parts(series[0], 2)
    archive.files.clear()
    archive.listed.clear()
    for path in (halves[0], series[1]):
        archive.add(path)
    incomplete = await pull(client, parts, asked(series[1]))
    told = await events(client, incomplete["id"])
    archive.add(halves[1])
    whole = await pull(client, parts, asked(series[1]))

    assert (incomplete["status"], incomplete["missing"]) == ("incomplete", ["Part 2 of 2 of a level is missing."])
    assert told[-1] == ("incomplete", {"missing": ["Part 2 of 2 of a level is missing."]})
    assert (whole["status"], whole["instances_done"]) == ("done", 3)
    assert len(archive.fetched) == 3


@pytest.mark.parametrize(
    ("trouble", "code", "status"),
    [
        ({"status": 503}, "archive_unavailable", "queued"),
        ({"status": 403}, "archive_refused", "failed"),
        ({"status": 404}, "not_found", "failed"),
        ({"status": 302, "location": "http://169.254.169.254/"}, "archive_answer_unusable", "queued"),
        ({"listed": []}, "not_found", "failed"),
        ({"cut_at": 300}, "archive_answer_unusable", "queued"),
        ({"content_type": "text/html"}, "archive_answer_unusable", "queued"),
    ],
)
async def test_trouble_with_the_archive_is_said(
    client: httpx.AsyncClient,
    parts: Parts,
    archive: Archive,
    series: list[Path],
    trouble: dict[str, Any],
    code: str,
    status: str,
) -> None:
    before = {name: getattr(archive, name) for name in trouble}
    for name, value in trouble.items():
        setattr(archive, name, value)
    stuck = await pull(client, parts, asked(series[0]))

    assert (stuck["status"], stuck["error"]["code"]) == (status, code)
    assert (await client.get("/v1/slides")).json()["data"] == []
    assert list(parts.store.staging_dir.iterdir()) == []
    for name, value in before.items():
        setattr(archive, name, value)
    if status == "queued":
        assert (await client.post(IMPORTS, json=asked(series[0]))).json()["id"] == stuck["id"]
        await parts.import_queue.put("default", stuck["id"])  # its time has come
        await attempt(parts)
    else:
        await pull(client, parts, asked(series[0]))
    after = (await client.get(f"{IMPORTS}/{stuck['id']}")).json()
    assert (after["status"], after["error"]) == ("done", None)


async def test_an_archive_that_stays_away_is_given_up(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    archive.status = 500
    story = replace(pull_series(parts), waits_s=(0.0, 0.0))
    record = await story.begin("default", "pacs", study_of(series[0]), series_of(series[0]))
    statuses = []
    for _ in range(3):
        ((tenant, import_id),) = await parts.import_queue.take(5)
        await story.run(tenant, import_id)
        statuses.append((await story.require("default", record.id)).status)

    assert statuses == ["queued", "queued", "failed"]
    assert await parts.import_queue.take(5) == []
    ((name, data),) = await events(client, record.id)
    assert (name, data["code"]) == ("failed", "archive_unavailable")


async def test_imports_are_bounded_and_one_that_is_known_begins_anew(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    archive.listed.clear()
    story = replace(pull_series(parts), most_kept=1)
    await pull(client, parts, asked(series[0]))
    again = await story.begin("default", "pacs", study_of(series[0]), series_of(series[0]))

    with pytest.raises(Overloaded):
        await story.begin("default", "pacs", study_of(series[0]), "1.2.3")
    assert again.status == "queued"


async def test_what_is_over_is_forgotten(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    archive.listed.clear()
    failed = await pull(client, parts, asked(series[0]))
    await pull_series(parts).find_forgotten("default", kept_s=3600)
    assert (await client.get(f"{IMPORTS}/{failed['id']}")).status_code == 200
    await pull_series(parts).find_forgotten("default", kept_s=-1)
    assert (await client.get(f"{IMPORTS}/{failed['id']}")).status_code == 404


async def test_an_instance_alone_without_multipart_is_taken(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    archive.content_type = "application/dicom"
    assert (await pull(client, parts, asked(series[0])))["status"] == "done"


async def test_what_differs_from_the_slide_is_not_mixed_into_it(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    await pull(client, parts, asked(series[0]))
    other = pydicom.dcmread(series[1])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    other.save_as(series[1], enforce_file_format=True)
    archive.add(series[1])
    refused = await pull(client, parts, asked(series[0]))

    assert (refused["status"], refused["error"]["code"]) == ("failed", "series_differs")


async def test_another_instance_than_was_asked_for_is_not_taken(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path], tmp_path: Path
) -> None:
    strange = write_series(tmp_path / "strange")[0].read_bytes()
    for path in list(archive.files):
        archive.files[path] = strange
    refused = await pull(client, parts, asked(series[0]))

    assert refused["error"]["code"] == "archive_answer_unusable"
    assert (await client.get("/v1/dicomweb/waiting")).json()["data"] == []


@pytest.mark.parametrize(
    ("bound", "code"),
    [({"max_upload_bytes": 3000}, "slide_too_large"), ({"quota_stored_bytes": 3000}, "quota_exceeded")],
)
async def test_bounds_are_those_of_uploads(
    make_app: Callable[..., FastAPI], archive: Archive, series: list[Path], bound: dict[str, int], code: str
) -> None:
    app = make_app(dicomweb_archives=(archive.described(),), **bound)
    async with client_of(app) as client:
        refused = await pull(client, app.state.parts, asked(series[0]))

    assert (refused["status"], refused["error"]["code"]) == ("failed", code)
    assert list(app.state.parts.store.staging_dir.iterdir()) == []


async def test_what_was_begun_goes_on_after_a_restart_and_without_redis(
    app: FastAPI, client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    begun = (await client.post(IMPORTS, json=asked(series[0]))).json()
    await parts.redis.flushall()
    watching = asyncio.create_task(build_import_watch(parts).run())
    try:

        async def is_done() -> bool:
            return bool((await client.get(f"{IMPORTS}/{begun['id']}")).json()["status"] == "done")

        await until(is_done)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert (await client.get(f"/v1/slides/dicom:{series_of(series[0])}")).status_code == 200


async def test_a_process_that_leaves_lets_go_of_its_imports(
    client: httpx.AsyncClient, parts: Parts, archive: Archive, series: list[Path]
) -> None:
    """Its instances that have come stay; the next process fetches the others."""
    begun = (await client.post(IMPORTS, json=asked(series[0]))).json()
    ((tenant, import_id),) = await parts.import_queue.take(5)
    assert await parts.import_queue.take(5) == []  # leased
    running = asyncio.create_task(pull_series(parts).run(tenant, import_id))

    async def has_one() -> bool:
        return bool((await client.get(f"{IMPORTS}/{begun['id']}")).json()["instances_done"] >= 1)

    await until(has_one)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await attempt(parts)

    assert (await client.get(f"{IMPORTS}/{begun['id']}")).json()["status"] == "done"
    assert len(set(archive.fetched)) == 2


async def test_only_tenants_that_the_operator_named_may_pull_and_see_it(
    make_app: Callable[..., FastAPI], archive: Archive, series: list[Path]
) -> None:
    app = make_app(require_key=True, dicomweb_archives=(archive.described(tenants=["a"]),))
    keys = [await create_key(app.state.parts.store, tenant) for tenant in ("a", "b")]
    async with client_of(app, keys[0]) as a, client_of(app, keys[1]) as b:
        refused = await b.post(IMPORTS, json=asked(series[0]))
        unknown = await b.post(IMPORTS, json=asked(series[0], dicomweb="another"))
        begun = (await a.post(IMPORTS, json=asked(series[0]))).json()

        assert (problem_of(refused, 404), problem_of(unknown, 404)) == ("not_found", "not_found")
        assert refused.json()["detail"] == unknown.json()["detail"]
        assert (await b.get(f"{IMPORTS}/{begun['id']}")).status_code == 404
        assert (await b.get(f"{IMPORTS}/{begun['id']}/events")).status_code == 404
        assert (await b.get(IMPORTS)).json()["data"] == []
    assert archive.asked == []


@pytest.mark.parametrize("changes", [{"study": "1.2/../.."}, {"series": ".."}, {"series": "x"}, {"url": "http://evil"}])
async def test_a_request_names_no_address(
    client: httpx.AsyncClient, archive: Archive, series: list[Path], changes: dict[str, str]
) -> None:
    assert problem_of(await client.post(IMPORTS, json=asked(series[0], **changes)), 422) == "invalid_request"
    assert archive.asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://pacs.example/dicom-web"},
        {"url": "ftp://pacs.example"},
        {"url": "https://me:secret@pacs.example"},
        {"url": "https://pacs.example?x=1"},
        {"user": "me"},
        {"user": "me", "password": "secret", "token": "t"},
        {"tenants": []},
        {"name": "PACS"},
        {"ca_file": "/nowhere"},
        {"pasword": "secret"},
    ],
)
def test_a_description_that_cannot_be_meant_is_refused_without_its_secrets(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        DicomwebArchive(**{"name": "pacs", "tenants": ["a"], "url": "https://pacs.example/dicom-web"} | wrong)

    assert "secret" not in str(refused.value)
