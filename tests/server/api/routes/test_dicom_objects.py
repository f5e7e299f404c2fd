"""QIDO-RS and WADO-RS of slides that came as DICOM, asked by dicomweb-client over real connections, and by hand."""

import asyncio
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from api_parts import client_of, problem_of
from dicom_series import STOW_HEADERS, as_label, in_parts, series_of, stow_body, study_of, write_series
from fastapi import FastAPI
from PIL import Image
from pydicom.encaps import generate_frames
from served_app import served

from server.api.dependencies import receive_series
from server.api.parts import Parts
from server.identity.api_keys import create_key

WEB = "/v1/dicomweb"
PATIENT = {"PatientName": "Müller^Änne", "PatientID": "P-17", "AccessionNumber": "S26-100", "StudyDate": "20261129"}


@pytest.fixture
def app(make_app: Callable[..., FastAPI]) -> FastAPI:
    """A series is quiet at once."""
    return make_app(dicom_quiet_s=0.0)


def named_series(folder: Path, **attributes: str) -> list[Path]:
    """Two levels of a patient."""
    paths = write_series(folder)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.Modality = "SM"
        for keyword, value in (PATIENT | attributes).items():
            setattr(dataset, keyword, value)
        dataset.save_as(path, enforce_file_format=True)
    return paths


async def stored(client: httpx.AsyncClient, parts: Parts, paths: list[Path]) -> None:
    body = stow_body([path.read_bytes() for path in paths])
    answer = await client.post(f"{WEB}/studies", content=body, headers=STOW_HEADERS)
    assert answer.status_code in (200, 202), answer.text
    await receive_series(parts).make_due()


def values(item: dict[str, Any], tag: str) -> list[Any]:
    found: list[Any] = item[tag].get("Value", [])
    return found


def searched(web: Any, first: list[Path]) -> None:
    study, series = study_of(first[0]), series_of(first[0])
    uids = sorted(str(pydicom.dcmread(it, stop_before_pixels=True).SOPInstanceUID) for it in first)
    studies = web.search_for_studies(search_filters={"PatientName": "müller*"})
    assert len(studies) == 2
    assert values(studies[0], "00100010") == [{"Alphabetic": "Müller^Änne"}]
    (mine,) = web.search_for_studies(search_filters={"PatientID": "P-17", "StudyDate": "20261101-20261130"})
    assert (values(mine, "0020000D"), values(mine, "00201208")) == ([study], [2])
    assert web.search_for_studies(search_filters={"StudyDate": "20200101-20200131"}) == []
    (found,) = web.search_for_series(study, fields=["SeriesDescription"])
    assert (values(found, "0020000E"), values(found, "00201209")) == ([series], [2])
    instances = web.search_for_instances(study, series)
    assert sorted(values(it, "00080018")[0] for it in instances) == uids
    assert len(web.search_for_instances(limit=3)) == 3
    assert len(web.search_for_instances(limit=3, offset=3)) == 1
    assert len(web.search_for_studies(get_remaining=True, limit=1)) == 2


def retrieved(web: Any, first: list[Path]) -> None:
    study, series = study_of(first[0]), series_of(first[0])
    metadata = web.retrieve_series_metadata(study, series)
    read = {it.SOPInstanceUID: it for it in map(pydicom.Dataset.from_json, metadata)}
    for path in first:
        whole = pydicom.dcmread(path)
        said = read[whole.SOPInstanceUID]
        del said.AvailableTransferSyntaxUID
        del whole.PixelData
        assert said == whole
        back = web.retrieve_instance(study, series, whole.SOPInstanceUID)
        assert back == pydicom.dcmread(path)
    assert len(web.retrieve_series(study, series)) == len(web.retrieve_study(study)) == 2
    assert len(web.retrieve_study_metadata(study)) == 2


def seen(web: Any, first: list[Path]) -> None:
    study, series = study_of(first[0]), series_of(first[0])
    level = pydicom.dcmread(first[0])
    assert web.retrieve_instance_metadata(study, series, level.SOPInstanceUID)["00280008"]["Value"] == [4]
    tiles = list(generate_frames(level.PixelData, number_of_frames=4))
    jpeg = (("image/jpeg", "1.2.840.10008.1.2.4.50"),)
    where = (study, series, level.SOPInstanceUID)
    assert web.retrieve_instance_frames(*where, frame_numbers=[1, 4], media_types=jpeg) == [tiles[0], tiles[3]]
    assert web.retrieve_instance_frames(*where, frame_numbers=[2]) == [tiles[1]]

    picture = Image.open(BytesIO(web.retrieve_series_rendered(study, series, media_types=("image/png",))))
    assert (picture.format, picture.size) == ("PNG", (512, 512))
    small = Image.open(BytesIO(web.retrieve_instance_rendered(*where, params={"viewport": "64,64"})))
    assert (small.format, small.size) == ("JPEG", (64, 64))
    green = np.asarray(picture.convert("RGB")).mean(axis=(0, 1))
    assert np.abs(np.asarray(small).mean(axis=(0, 1)) - green).max() < 3


async def test_dicomweb_client_searches_and_retrieves(app: FastAPI, parts: Parts, tmp_path: Path) -> None:
    dicomweb_client = pytest.importorskip("dicomweb_client")
    first, second = named_series(tmp_path / "a"), named_series(tmp_path / "b", PatientID="P-18")
    label = as_label(first[0])
    async with served(app) as client:
        await stored(client, parts, [*first, label])
        await stored(client, parts, second)
        web = dicomweb_client.DICOMwebClient(f"{client.base_url}{WEB}")

        for step in (searched, retrieved, seen):
            await asyncio.to_thread(step, web, first)
        level_address = f"{WEB}/studies/{study_of(first[1])}/series/{series_of(first[1])}/instances/"
        level_address += str(pydicom.dcmread(first[1]).SOPInstanceUID)
        thumbnail = await client.get(f"{level_address}/thumbnail")
        assert Image.open(BytesIO(thumbnail.content)).size == (256, 256)


async def test_every_part_of_a_level_and_nothing_of_a_label_is_served(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    paths = named_series(tmp_path / "a")
    label = as_label(paths[0])
    halves = in_parts(paths[0], 2)
    label_uid = pydicom.dcmread(label).SOPInstanceUID
    files = [("file", (it.name, it.read_bytes(), "application/dicom")) for it in (*halves, paths[1], label)]
    uploaded = await client.post("/v1/slides", files=files)
    series = f"{WEB}/studies/{study_of(paths[1])}/series/{series_of(paths[1])}"

    found = (await client.get(f"{series}/instances")).json()
    whole = await client.get(series)
    frames = [await client.get(f"{series}/instances/{values(it, '00080018')[0]}/frames/1") for it in found]

    assert uploaded.status_code == 202, uploaded.text
    assert len(found) == 3
    assert all(label_uid not in values(it, "00080018") for it in found)
    assert all(path.read_bytes() in whole.content for path in (*halves, paths[1]))
    assert label.read_bytes() not in whole.content
    assert label_uid.encode() not in (await client.get(f"{series}/metadata")).content
    assert [it.status_code for it in frames] == [200, 200, 200]
    assert problem_of(await client.get(f"{series}/instances/{label_uid}"), 404) == "not_found"


async def test_what_is_not_there_or_not_as_asked_is_said(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    paths = named_series(tmp_path / "a")
    await stored(client, parts, paths)
    study, series = study_of(paths[0]), series_of(paths[0])
    level = f"{WEB}/studies/{study}/series/{series}/instances/{pydicom.dcmread(paths[0]).SOPInstanceUID}"

    assert problem_of(await client.get(f"{WEB}/studies/1.2.3"), 404) == "not_found"
    assert problem_of(await client.get(f"{WEB}/studies/1.2.3/series/{series}/metadata"), 404) == "not_found"
    assert problem_of(await client.get(f"{WEB}/studies/no-uid/series"), 422) == "invalid_request"
    assert problem_of(await client.get(f"{level}/frames/5"), 404) == "not_found"
    assert problem_of(await client.get(f"{level}/frames/0"), 404) == "not_found"
    assert problem_of(await client.get(f"{level}/rendered?viewport=1,2,3,4"), 422) == "invalid_request"
    for query in ("PatientWeight=3", "StudyDate=yesterday", "Rows=x", "PatientID=a&00100020=b", "limit=0"):
        assert problem_of(await client.get(f"{WEB}/instances?{query}"), 422) == "invalid_request", query
    uncompressed = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'}
    refused = await client.get(f"{level}/frames/1", headers=uncompressed)
    assert problem_of(refused, 406) == "not_acceptable"
    assert "1.2.840.10008.1.2.4.50" in refused.json()["detail"]
    assert problem_of(await client.get(level, headers={"Accept": "text/html"}), 406) == "not_acceptable"
    assert problem_of(await client.get(f"{WEB}/studies", headers={"Accept": "application/dicom+xml"}), 406)
    limited = await client.get(f"{WEB}/instances?limit=1&fuzzymatching=true&includefield=PatientWeight,ImageType")
    assert "There are 1 additional results" in limited.headers["Warning"]
    assert "fuzzymatching" in limited.headers["Warning"]
    assert "1 of the attributes in includefield" in limited.headers["Warning"]
    assert values(limited.json()[0], "00080008")[0] in ("ORIGINAL", "DERIVED")
    tags = (await client.get(f"{WEB}/instances?includefield=ImageType&includefield=TotalPixelMatrixRows")).json()[0]
    assert {"00080008", "00480007"} <= set(tags)


async def test_another_tenant_finds_nothing_and_a_deleted_slide_is_gone(
    make_app: Callable[..., FastAPI], tmp_path: Path
) -> None:
    app = make_app(require_key=True, dicom_quiet_s=0.0)
    parts: Parts = app.state.parts
    keys = [await create_key(parts.store, tenant) for tenant in ("a", "b")]
    paths = named_series(tmp_path / "a")
    study, series = study_of(paths[0]), series_of(paths[0])
    addresses = [f"{WEB}/studies/{study}", f"{WEB}/studies/{study}/series/{series}/metadata"]
    async with client_of(app, keys[0]) as a, client_of(app, keys[1]) as b:
        await stored(a, parts, paths)

        assert (await b.get(f"{WEB}/studies")).json() == []
        assert (await b.get(f"{WEB}/instances?StudyInstanceUID={study}")).json() == []
        assert [(await b.get(it)).status_code for it in addresses] == [404, 404]
        assert len((await a.get(f"{WEB}/studies")).json()) == 1
        assert (await a.delete(f"/v1/slides/dicom:{series}")).status_code == 204
        assert (await a.get(f"{WEB}/studies")).json() == []
        assert [(await a.get(it)).status_code for it in addresses] == [404, 404]
        assert (await a.get("/v1/usage")).json()["stored_bytes"] == 0


async def test_a_slide_whose_upload_died_before_its_headers_were_read_is_found(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    paths = named_series(tmp_path / "a")
    await stored(client, parts, paths)
    (slide,) = (await client.get("/v1/slides")).json()["data"]
    record = await parts.slides.require("default", slide["id"])
    await parts.store.delete_folder(f"{record.paths.folder}/dicom")

    (found,) = (await client.get(f"{WEB}/studies")).json()

    assert values(found, "00201208") == [2]
    assert await parts.store.exists(record.paths.dicom_series)
    assert list(parts.store.staging_dir.iterdir()) == []
