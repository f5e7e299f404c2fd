"""A real archive pushes a series, is pulled from, and fetches: Orthanc with its DICOMweb plugin, as Debian packages
them (`make archive`)."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from api_parts import until
from dicom_series import STOW_HEADERS, as_label, in_parts, series_of, stow_body, study_of, write_series
from fastapi import FastAPI
from served_app import served

from server.api.dependencies import pull_series, receive_series
from server.api.parts import Parts
from server.machine.redis_server import free_loopback_port
from server.uploads.dicom.archive import DicomwebArchive

SHARED = Path(__file__).resolve().parents[4] / "shared" / "slides"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [
    pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="a long test: make archive"),
    pytest.mark.skipif(shutil.which("Orthanc") is None or not PLUGIN.exists(), reason="Orthanc is not installed"),
]


LOGIN = ("eyepiece", "s3cret")


@asynccontextmanager
async def orthanc(folder: Path, eyepiece: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a new archive that knows Eyepiece."""
    folder.mkdir(exist_ok=True)
    port = free_loopback_port()
    config = {
        "HttpPort": port,
        "StorageDirectory": str(folder / "archive"),
        "IndexDirectory": str(folder / "archive"),
        "DicomServerEnabled": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": dict([LOGIN]),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Servers": {"eyepiece": [f"{eyepiece}/v1/dicomweb/"]}},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("Orthanc", str(folder / "orthanc.json"), stdout=log, stderr=log)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, auth=LOGIN) as client:
                await until(lambda: _answers(client))
                yield client
        finally:
            process.terminate()
            await process.wait()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/system")).is_success
    except httpx.TransportError:
        return False


async def test_orthanc_pushes_a_series_once_and_again(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    app = make_app(dicom_quiet_s=0.0)
    parts: Parts = app.state.parts
    paths = write_series(tmp_path / "series")
    label = as_label(paths[0])
    files = [*in_parts(paths[0], 2), paths[1], label]
    uid = series_of(paths[1])
    async with served(app) as client, orthanc(tmp_path / "orthanc", str(client.base_url).rstrip("/")) as archive:
        for path in files:
            (await archive.post("/instances", content=path.read_bytes())).raise_for_status()
        (series,) = (await archive.get("/series")).json()
        for _ in range(2):
            pushed = await archive.post("/dicom-web/servers/eyepiece/stow", json={"Resources": [series]})
            assert pushed.status_code == 200, pushed.text + (tmp_path / "orthanc" / "orthanc.log").read_text()
            await receive_series(parts).make_due()
        slides = (await client.get("/v1/slides")).json()["data"]

        assert [(slide["series_uid"], slide["width"], slide["height"]) for slide in slides] == [(uid, 512, 512)]
        assert slides[0]["size_bytes"] > 0
        assert (await client.get(f"/v1/slides/dicom:{uid}")).status_code == 200


async def fill(archive: httpx.AsyncClient, paths: Sequence[Path]) -> None:
    for path in paths:
        (await archive.post("/instances", content=path.read_bytes())).raise_for_status()


def described(archive: httpx.AsyncClient, **changes: str) -> DicomwebArchive:
    url = f"{str(archive.base_url).rstrip('/')}/dicom-web"
    said = {"name": "orthanc", "tenants": ["default"], "url": url, "plain_http": True}
    return DicomwebArchive(**said | {"user": LOGIN[0], "password": LOGIN[1]} | changes)


def in_native_parts(whole: Path, folder: Path, count: int) -> list[Path]:
    """A level whose pixels are not compressed, as a concatenation."""
    folder.mkdir()
    dataset = pydicom.dcmread(whole)
    pixels, frames = dataset.PixelData, int(dataset.NumberOfFrames)
    frame_bytes, size = len(pixels) // frames, -(-frames // count)
    concatenation, source = pydicom.uid.generate_uid(), dataset.SOPInstanceUID
    paths = []
    for number, first in enumerate(range(0, frames, size)):
        part = pydicom.dcmread(whole)
        own = min(size, frames - first)
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        part.SOPInstanceUIDOfConcatenationSource, part.ConcatenationUID = source, concatenation
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number + 1, -(-frames // size)
        part.ConcatenationFrameOffsetNumber, part.NumberOfFrames = first, own
        part.PixelData = pixels[first * frame_bytes : (first + own) * frame_bytes]
        if "PerFrameFunctionalGroupsSequence" in part:
            part.PerFrameFunctionalGroupsSequence = part.PerFrameFunctionalGroupsSequence[first : first + own]
        paths.append(folder / f"part-{number}.dcm")
        part.save_as(paths[-1], enforce_file_format=True)
    return paths


async def test_what_is_pulled_from_orthanc_is_what_was_uploaded_and_pushed(
    make_app: Callable[..., FastAPI], tmp_path: Path
) -> None:
    paths = write_series(tmp_path / "series")
    files = [*in_parts(paths[0], 2), paths[1]]
    label = as_label(files[0])
    study, series = study_of(paths[1]), series_of(paths[1])
    async with orthanc(tmp_path / "orthanc", "http://127.0.0.1:9") as archive:
        await fill(archive, [*files[1:], label])
        app = make_app(dicom_quiet_s=0.0, dicomweb_archives=(described(archive),))
        parts: Parts = app.state.parts
        async with served(app) as client:

            async def pulled() -> dict[str, Any]:
                body = {"dicomweb": "orthanc", "study": study, "series": series}
                begun = (await client.post("/v1/imports", json=body)).json()
                for tenant, import_id in await parts.import_queue.take(5):
                    await pull_series(parts).run(tenant, import_id)
                found: dict[str, Any] = (await client.get(f"/v1/imports/{begun['id']}")).json()
                return found

            incomplete = await pulled()
            await fill(archive, files[:1])
            whole, again = await pulled(), await pulled()
            uids = [pydicom.dcmread(it, stop_before_pixels=True).SOPInstanceUID for it in files]
            named = [("file", (f"{uid}.dcm", it.read_bytes())) for uid, it in zip(uids, files, strict=True)]
            uploaded = await client.post("/v1/slides", files=named)

            assert (incomplete["status"], incomplete["missing"]) == (
                "incomplete",
                ["Part 1 of 2 of a level is missing."],
            )
            assert (whole["status"], whole["instances"], whole["error"]) == ("done", 3, None)
            assert whole["slide_id"] == again["slide_id"] == uploaded.json()["id"]  # the same bytes, to the last
            assert uploaded.status_code == 200
            assert len((await client.get("/v1/slides")).json()["data"]) == 1


async def test_orthanc_that_refuses_is_away_or_knows_nothing(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series")
    study, series = study_of(paths[1]), series_of(paths[1])
    async with orthanc(tmp_path / "orthanc", "http://127.0.0.1:9") as archive:
        wrong = described(archive, name="wrong", password="another")
        away = described(archive, name="away", url=f"http://127.0.0.1:{free_loopback_port()}/dicom-web")
        app = make_app(dicomweb_archives=(described(archive), wrong, away))
        parts: Parts = app.state.parts
        codes = {}
        for name in ("orthanc", "wrong", "away"):
            record = await pull_series(parts).begin("default", name, study, series)
            for tenant, import_id in await parts.import_queue.take(5):
                await pull_series(parts).run(tenant, import_id)
            ended = await pull_series(parts).require("default", record.id)
            codes[name] = (ended.status, ended.error and ended.error.code)

    assert codes == {
        "orthanc": ("failed", "not_found"),
        "wrong": ("failed", "archive_refused"),
        "away": ("queued", "archive_unavailable"),
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/slides is not there")
async def test_published_instances_come_through_orthanc_and_go_back(
    make_app: Callable[..., FastAPI], tmp_path: Path
) -> None:
    """highdicom's example, whole and as a concatenation made of it, and OpenSlide's; fetched by Orthanc afterwards."""
    dicomweb_client = pytest.importorskip("dicomweb_client")
    sm = SHARED / "highdicom_sm_image.dcm"
    boxes = [SHARED / "ospy_boxes_dicom" / name for name in ("boxes_0.dcm", "boxes_1.dcm")]
    sources = {"whole": [sm], "parts": in_native_parts(sm, tmp_path / "parts", 3), "boxes": boxes}
    for name, paths in sources.items():
        series = series_of(paths[0])
        async with orthanc(tmp_path / f"orthanc-{name}", "http://127.0.0.1:9") as archive:
            await fill(archive, paths)
            app = make_app(dicomweb_archives=(described(archive),), data_dir=tmp_path / f"data-{name}")
            parts: Parts = app.state.parts
            record = await pull_series(parts).begin("default", "orthanc", study_of(paths[0]), series)
            for tenant, import_id in await parts.import_queue.take(5):
                await pull_series(parts).run(tenant, import_id)
            ended = await pull_series(parts).require("default", record.id)
            async with served(app) as client:
                web = dicomweb_client.DICOMwebClient(f"{client.base_url}/v1/dicomweb")
                found = await asyncio.to_thread(web.search_for_instances, study_of(paths[0]), series)
                uids = {it["00080018"]["Value"][0] for it in found}
                back = await asyncio.to_thread(web.retrieve_series, study_of(paths[0]), series)

        levels = [pydicom.dcmread(it) for it in (boxes[:1] if name == "boxes" else paths)]
        assert (ended.status, ended.error) == ("done", None), name
        assert uids == {it.SOPInstanceUID for it in levels}, name
        assert {it.SOPInstanceUID: it.PixelData for it in back} == {it.SOPInstanceUID: it.PixelData for it in levels}


async def test_orthanc_fetches_a_slide(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    app = make_app(dicom_quiet_s=0.0)
    paths = write_series(tmp_path / "series")
    async with served(app) as client, orthanc(tmp_path / "orthanc", str(client.base_url).rstrip("/")) as archive:
        body = stow_body([path.read_bytes() for path in paths])
        (await client.post("/v1/dicomweb/studies", content=body, headers=STOW_HEADERS)).raise_for_status()
        await receive_series(app.state.parts).make_due()
        asked = {"Resources": [{"Study": study_of(paths[0]), "Series": series_of(paths[0])}]}
        fetched = await archive.post("/dicom-web/servers/eyepiece/retrieve", json=asked)
        found = await archive.post(
            "/dicom-web/servers/eyepiece/qido", json={"Uri": "/studies", "Arguments": {"limit": "5"}}
        )
        instances = [
            (await archive.get(f"/instances/{it}/file")).content for it in (await archive.get("/instances")).json()
        ]

    assert fetched.status_code == 200, fetched.text
    assert sorted(instances) == sorted(path.read_bytes() for path in paths)
    assert found.status_code == 200, found.text
