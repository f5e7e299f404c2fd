"""A slide to look at: DeepZoom tiles and thumbnails over HTTP, from real reader processes and from held ones."""

import asyncio
import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_parts import problem_of, stored_slide, until, upload
from fastapi import FastAPI
from held_readers import held_readers
from served_app import served
from slides_of_several import write_mirax
from structlog.testing import capture_logs

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.deep_zoom import DeepZoom
from encoders.tiling.pictures.view_pictures import ViewPictures, as_jpeg
from encoders.tiling.slide_readers.choose_reader import open_reader
from server.api.parts import Parts
from server.api.routes.pictures import accepted_form

_PYRAMID = DeepZoom(1024, 768)
_FACTS: dict[str, Any] = {"vendor": "aperio", "width": 1024, "height": 768}


@pytest.fixture
async def shown(client: httpx.AsyncClient, sample_slide: bytes) -> str:
    """The address of a real slide of 1024 × 768 px."""
    slide = (await upload(client, sample_slide)).json()
    return f"/v1/slides/{slide['id']}"


@pytest.fixture
def direct(sample_slide: bytes, tmp_path: Path) -> ViewPictures:
    """The same slide, without a process in between."""
    path = tmp_path / "direct.svs"
    path.write_bytes(sample_slide)
    limits = ReaderLimits()
    return ViewPictures(open_reader(path, limits).reader, limits)


def sample(parts: Parts, name: str, **labels: str) -> float:
    return parts.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_viewer_gets_every_tile_from_one_reader(
    client: httpx.AsyncClient, parts: Parts, shown: str, direct: ViewPictures
) -> None:
    described = await client.get(f"{shown}/tiles.dzi")
    image = ET.fromstring(described.text)
    size = image[0].attrib
    assert described.headers["Content-Type"] == "application/xml"
    assert (image.attrib["TileSize"], image.attrib["Overlap"], image.attrib["Format"]) == ("256", "0", "jpg")
    assert (size["Width"], size["Height"], image.attrib["Url"]) == ("1024", "768", f"{shown}/tiles/")
    assert sample(parts, "eyepiece_slide_readers_started_total") == 0, "the record says how large it is"

    for level in (0, 8, 9, 10):
        columns, rows = _PYRAMID.grid(level)
        for column, row in [(0, 0), (columns - 1, rows - 1)]:
            tile = await client.get(f"{shown}/tiles/{level}/{column}_{row}.jpg")
            assert tile.content == direct.tile_jpeg(level, column, row)
            assert tile.headers["Content-Type"] == "image/jpeg"
            assert tile.headers["Cache-Control"] == "private, max-age=86400, immutable"
            assert tile.headers["Vary"] == "Authorization"
    picture = await client.get(f"{shown}/thumbnail?max_px=300")
    png = await client.get(f"{shown}/thumbnail?max_px=300", headers={"Accept": "image/png"})

    assert picture.content == as_jpeg(direct.thumbnail(300))
    assert (png.headers["Content-Type"], png.content[:4]) == ("image/png", b"\x89PNG")
    assert picture.headers["ETag"] != png.headers["ETag"]
    assert picture.headers["Vary"] == "Authorization, Accept"
    assert problem_of(await client.get(f"{shown}/thumbnail?max_px=9999"), 422) == "invalid_request"
    assert sample(parts, "eyepiece_slide_readers_started_total") == 1
    assert sample(parts, "eyepiece_view_tiles_total", outcome="sent") == 8

    await killed_and_replaced(client, parts, shown)
    await deleted(client, parts, shown)


async def killed_and_replaced(client: httpx.AsyncClient, parts: Parts, shown: str) -> None:
    """In the middle of a request: the reader is stopped first, so that it cannot be done before it is killed."""
    (slide,) = parts.open_slides._placed
    assert slide.reader is not None
    assert slide.reader.pid is not None
    os.kill(slide.reader.pid, signal.SIGSTOP)
    asked = asyncio.create_task(client.get(f"{shown}/tiles/10/1_1.jpg"))
    await until(lambda: slide.is_busy)
    os.kill(slide.reader.pid, signal.SIGKILL)
    lost = await asked

    assert problem_of(lost, 503) == "slide_reader_lost"
    assert lost.headers["Retry-After"]
    assert (await client.get(f"{shown}/tiles/10/1_1.jpg")).status_code == 200
    assert sample(parts, "eyepiece_slide_readers_started_total") == 2


async def deleted(client: httpx.AsyncClient, parts: Parts, shown: str) -> None:
    assert (await client.delete(shown)).status_code == 204

    assert problem_of(await client.get(f"{shown}/tiles/10/1_1.jpg"), 404) == "not_found"
    assert problem_of(await client.get(f"{shown}/tiles.dzi"), 404) == "not_found"
    await until(lambda: not parts.open_slides._placed)
    assert sample(parts, "eyepiece_slide_readers_open") == 0


async def test_a_slide_of_several_files_is_shown_by_a_replica_that_never_saw_it(
    client: httpx.AsyncClient, make_app: Callable[..., FastAPI], tmp_path: Path
) -> None:
    path = write_mirax(tmp_path / "mirax")
    files = [file for file in sorted(path.parent.rglob("*")) if file.is_file()]
    form = [("file", (str(file.relative_to(path.parent)), file.read_bytes())) for file in files]
    slide = (await client.post("/v1/slides", files=form)).json()
    replica = make_app()
    async with served(replica) as other:
        level = DeepZoom(slide["width"], slide["height"]).level_count - 1
        tile = await other.get(f"/v1/slides/{slide['id']}/tiles/{level}/0_0.jpg")

        assert (tile.status_code, tile.content[:2]) == (200, b"\xff\xd8")
        replica.state.parts.open_slides.forget("default", slide["id"])
        await until(lambda: not replica.state.parts.open_slides._placed)
    assert list(replica.state.parts.store.staging_dir.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    ["11/0_0", "10/4_0", "10/0_3", "0/1_0", "-1/0_0", "x/0_0", "10/00_0", "10/0_x", "10/0", "9" * 40 + "/0_0"],
)
async def test_a_tile_that_is_not_there_is_not_found_and_starts_no_reader(
    app: FastAPI, client: httpx.AsyncClient, parts: Parts, address: str
) -> None:
    readers = held_readers(app)
    record = await stored_slide(parts, **_FACTS)

    answer = await client.get(f"/v1/slides/{record.id}/tiles/{address}.jpg")

    assert problem_of(answer, 404) == "not_found"
    assert readers.started == []


async def test_a_slide_whose_record_does_not_say_its_size_is_asked(
    app: FastAPI, client: httpx.AsyncClient, parts: Parts
) -> None:
    held_readers(app)
    record = await stored_slide(parts)

    assert 'Width="1024" Height="768"' in (await client.get(f"/v1/slides/{record.id}/tiles.dzi")).text


@pytest.mark.parametrize("what", ["tiles.dzi", "tiles/10/3_2.jpg"])
async def test_a_version_that_the_client_has_costs_no_reader(
    app: FastAPI, client: httpx.AsyncClient, parts: Parts, what: str
) -> None:
    readers = held_readers(app)
    record = await stored_slide(parts, **_FACTS)
    path = f"/v1/slides/{record.id}/{what}"
    etag = (await client.get(path)).headers["ETag"]
    started = len(readers.started)
    asked = [len(reader.asked) for reader in readers.started]

    unchanged = await client.get(path, headers={"If-None-Match": f'"other", {etag}'})

    assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", etag)
    assert unchanged.headers["Vary"] == "Authorization"
    assert (len(readers.started), [len(reader.asked) for reader in readers.started]) == (started, asked)


async def test_tiles_are_logged_when_they_fail(app: FastAPI, client: httpx.AsyncClient, parts: Parts) -> None:
    held_readers(app)
    record = await stored_slide(parts, **_FACTS)
    with capture_logs() as logged:
        await client.get(f"/v1/slides/{record.id}/tiles/10/0_0.jpg")
        await client.get(f"/v1/slides/{record.id}/tiles/10/9_0.jpg")

    assert [entry["status"] for entry in logged if entry["event"] == "request"] == [404]


async def test_tiles_of_who_hung_up_are_not_read(app: FastAPI, parts: Parts) -> None:
    readers = held_readers(app, answering=False)
    record = await stored_slide(parts, **_FACTS)
    async with served(app) as http:
        first = asyncio.create_task(http.get(f"/v1/slides/{record.id}/tiles/10/0_0.jpg"))
        await until(lambda: bool(readers.started and readers.started[0].asked))
        for column in range(1, 4):
            _, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
            path = f"/v1/slides/{record.id}/tiles/10/{column}_1.jpg"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            await until(lambda: sample(parts, "eyepiece_view_pictures_waiting") == 1)
            writer.transport.abort()
            await until(lambda: sample(parts, "eyepiece_view_pictures_waiting") == 0)
        readers.answer.set()
        assert (await first).content == b"tile 10 0 0"

    assert readers.started[0].asked == [(10, 0, 0)]
    assert sample(parts, "eyepiece_view_tiles_total", outcome="dropped") == 3


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "jpeg"),
        ("*/*", "jpeg"),
        ("image/png", "png"),
        ("image/png, application/problem+json", "png"),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "jpeg"),
        ("image/jpeg;q=0.5, image/png", "png"),
        ("image/jpeg, image/png;q=0.9", "jpeg"),
        ("image/jpeg;q=0, image/*", "png"),
        ("application/json", "jpeg"),
        ("IMAGE/PNG; Q=1.0", "png"),
        (";;q=,,=", "jpeg"),
    ],
)
def test_png_is_for_those_who_would_rather_have_it(accept: str, form: str) -> None:
    assert accepted_form(accept) == form
