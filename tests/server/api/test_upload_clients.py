"""Clients of resumable uploads against the API behind a real server: tuspy, tus-js-client, and `eyepiece upload`."""

import asyncio
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from served_app import served
from slides_of_several import write_vms

from server.api.parts import Parts
from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError
from server.commands.send_slide import OnBytes, SlideSender
from server.commands.slide_files import slide_files
from server.commands.upload_notes import UploadNotes

# With `npm install tus-js-client` done there (`make resumable` does it).
NODE_MODULES = Path(os.environ.get("EYEPIECE_TUS_JS", Path(__file__).parents[3] / "build" / "tus-js"))
SUPPORT = Path(__file__).parents[2] / "support"
JS_CLIENT = SUPPORT / "tus_js_upload.mjs"


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    async with served(app) as client:
        yield str(client.base_url)


@pytest.fixture
def slide(tmp_path: Path, sample_slide: bytes) -> Path:
    path = tmp_path / "sample.svs"
    path.write_bytes(sample_slide)
    return path


def send(url: str, path: Path, notes: UploadNotes, on_bytes: OnBytes = lambda name, sent: None) -> dict[str, Any]:
    """What `eyepiece upload` does until the slide is there, without its pauses."""
    with ApiClient(url) as client:
        sender = SlideSender(client, on_bytes, at_once=2, wait=lambda stop, seconds: None)
        return sender.send(slide_files(path), notes)


@pytest.mark.skipif(importlib.util.find_spec("tusclient") is None, reason="tuspy is not installed")
async def test_tuspy_uploads_in_chunks_and_goes_on(url: str, slide: Path, sample_slide: bytes) -> None:
    third = len(sample_slide) // 3 + 1
    command = [sys.executable, str(SUPPORT / "tuspy_upload.py"), f"{url}/v1/uploads", str(slide), str(third)]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=240, check=False)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(third), str(len(sample_slide))]
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        found = await http.get(f"/v1/slides/{hashlib.sha256(sample_slide).hexdigest()}")
    assert found.json()["filename"] == "Müller.svs"


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "node_modules").is_dir(),
    reason="tus-js-client is not installed: make resumable",
)
async def test_tus_js_client_uploads_and_goes_on(url: str, slide: Path, sample_slide: bytes) -> None:
    command = ["node", str(JS_CLIENT), str(NODE_MODULES), f"{url}/v1/uploads", str(slide), "3"]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == hashlib.sha256(sample_slide).hexdigest()


async def test_eyepiece_upload_goes_on_where_an_earlier_run_was_stopped(
    url: str, parts: Parts, slide: Path, sample_slide: bytes, tmp_path: Path
) -> None:
    half = len(sample_slide) // 2
    with ApiClient(url) as client:
        upload = await asyncio.to_thread(client.create_upload, len(sample_slide), {"filename": "sample.svs"})
    UploadNotes(url, slide, tmp_path / "state").keep("sample.svs", slide.stat(), upload)
    record = await parts.upload_shelf.require("default", upload.rsplit("/", 1)[-1])
    parts.upload_shelf.data(record).write(0, sample_slide[:half])
    heard: list[tuple[str, int]] = []

    notes = UploadNotes(url, slide, tmp_path / "state")
    made = await asyncio.to_thread(send, url, slide, notes, lambda name, sent: heard.append((name, sent)))

    assert made["id"] == hashlib.sha256(sample_slide).hexdigest()
    assert heard[0] == ("sample.svs", half)
    assert heard[-1] == ("sample.svs", len(sample_slide))
    assert list((tmp_path / "state").rglob("*.json")) == []


async def test_eyepiece_upload_begins_anew_where_the_upload_is_gone(
    url: str, slide: Path, sample_slide: bytes, tmp_path: Path
) -> None:
    notes = UploadNotes(url, slide, tmp_path / "state")
    notes.keep("sample.svs", slide.stat(), f"/v1/uploads/{'0' * 64}")
    made = await asyncio.to_thread(send, url, slide, notes)
    assert made["id"] == hashlib.sha256(sample_slide).hexdigest()


async def test_eyepiece_upload_sends_the_files_of_a_slide_at_once(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "vms"
    write_vms(folder)
    heard: list[str] = []
    notes = UploadNotes(url, folder, tmp_path / "state")
    made = await asyncio.to_thread(send, url, folder, notes, lambda name, sent: heard.append(name))
    assert made["vendor"] == "hamamatsu"
    assert set(heard) == set(slide_files(folder).files)


async def test_a_file_that_changes_while_it_is_sent_is_said(url: str, slide: Path, tmp_path: Path) -> None:
    notes = UploadNotes(url, slide, tmp_path / "state")
    with pytest.raises(CommandError, match="changed while it was sent"):
        await asyncio.to_thread(send, url, slide, notes, lambda name, sent: os.utime(slide, (1, 1)))


async def test_what_is_no_slide_is_said_once_and_forgotten(url: str, tmp_path: Path) -> None:
    path = tmp_path / "letter.svs"
    path.write_bytes(b"hello")
    with pytest.raises(CommandError) as caught:
        await asyncio.to_thread(send, url, path, UploadNotes(url, path, tmp_path / "state"))
    assert caught.value.problem_code == "unsupported_format"
    assert list((tmp_path / "state").rglob("*.json")) == []


def test_a_line_that_breaks_is_tried_again_from_where_the_server_is(tmp_path: Path) -> None:
    """A transport that takes half of what comes and hangs up, twice."""
    path = tmp_path / "a.svs"
    path.write_bytes(os.urandom(100_000))
    have, lock = bytearray(), threading.Lock()

    def serve(request: httpx.Request) -> httpx.Response:
        with lock:
            if request.method == "POST":
                return httpx.Response(201, headers={"Location": "/v1/uploads/u"})
            if request.method == "GET":
                return httpx.Response(200, json={"id": "a" * 64})
            if request.method == "PATCH":
                assert int(request.headers["Upload-Offset"]) == len(have)
                content = request.read()
                if len(have) < 70_000:
                    have.extend(content[: len(content) // 2])
                    raise httpx.WriteError("the line broke")
                have.extend(content)
            told = {"Upload-Offset": str(len(have))}
            if len(have) == 100_000:
                told["Eyepiece-Slide-Id"] = "a" * 64
            return httpx.Response(204, headers=told)

    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(serve))
    sender = SlideSender(client, lambda name, sent: None, wait=lambda stop, seconds: None)
    assert sender.send(slide_files(path), UploadNotes("x", path, tmp_path / "state"))["id"] == "a" * 64
    assert bytes(have) == path.read_bytes()
