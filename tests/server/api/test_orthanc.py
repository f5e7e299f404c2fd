"""A real archive pushes a series: Orthanc with its DICOMweb plugin, as Debian packages them (`make archive`)."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from api_parts import until
from dicom_series import as_label, in_parts, series_of, write_series
from fastapi import FastAPI
from served_app import served

from server.api.dependencies import receive_series
from server.api.parts import Parts
from server.machine.redis_server import free_loopback_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [
    pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="a long test: make archive"),
    pytest.mark.skipif(shutil.which("Orthanc") is None or not PLUGIN.exists(), reason="Orthanc is not installed"),
]


@asynccontextmanager
async def orthanc(folder: Path, eyepiece: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a new archive that knows Eyepiece."""
    port = free_loopback_port()
    config = {
        "HttpPort": port,
        "StorageDirectory": str(folder / "archive"),
        "IndexDirectory": str(folder / "archive"),
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Servers": {"eyepiece": [f"{eyepiece}/v1/dicomweb/"]}},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("Orthanc", str(folder / "orthanc.json"), stdout=log, stderr=log)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
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
    async with served(app) as client, orthanc(tmp_path, str(client.base_url).rstrip("/")) as archive:
        for path in files:
            (await archive.post("/instances", content=path.read_bytes())).raise_for_status()
        (series,) = (await archive.get("/series")).json()
        for _ in range(2):
            pushed = await archive.post("/dicom-web/servers/eyepiece/stow", json={"Resources": [series]})
            assert pushed.status_code == 200, pushed.text + (tmp_path / "orthanc.log").read_text()
            await receive_series(parts).make_due()
        slides = (await client.get("/v1/slides")).json()["data"]

        assert [(slide["series_uid"], slide["width"], slide["height"]) for slide in slides] == [(uid, 512, 512)]
        assert slides[0]["size_bytes"] > 0
        assert (await client.get(f"/v1/slides/dicom:{uid}")).status_code == 200
