"""POST /v1/slides through the whole API: real store, real Redis, a real reader process that looks inside."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from api_parts import client_of, problem_of, upload
from fastapi import FastAPI
from pydantic import SecretStr
from tifffile import TiffFile
from tiled_jpeg import Recipe, write_slide

from server.api.parts import Parts
from server.machine.redis_server import free_loopback_port

SLIDE_FIELDS = {
    "accession",
    "case",
    "patient_ref",
    "stain",
    "body_site",
    "labels",
    "familiarity",
    "id",
    "object",
    "status",
    "filename",
    "size_bytes",
    "vendor",
    "width",
    "height",
    "mpp",
    "mpp_source",
    "objective_power",
    "study_uid",
    "series_uid",
    "warnings",
    "tile_count",
    "encoder_id",
    "encodings",
    "error",
    "created_at",
}


async def test_an_upload_is_accepted_and_queued(client: httpx.AsyncClient, parts: Parts, sample_slide: bytes) -> None:
    answer = await upload(client, sample_slide)

    slide = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/slides/{slide['id']}"
    assert answer.headers["Retry-After"]
    assert answer.headers["X-Request-Id"]
    assert set(slide) == SLIDE_FIELDS
    assert (slide["status"], slide["object"], slide["filename"]) == ("queued", "slide", "Doe^Jane.svs")
    assert (slide["width"], slide["height"], slide["mpp"], slide["vendor"]) == (1024, 768, 0.5, "aperio")
    assert slide["size_bytes"] == len(sample_slide)
    assert slide["created_at"].endswith("Z")
    assert (await parts.jobs.depth("routine")).queued == 1
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_what_is_doubtful_about_a_file_is_said_at_once(client: httpx.AsyncClient, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(description="Aperio drawn\r\n|AppMag = 40|MPP = 0.5"))

    slide = (await upload(client, path.read_bytes())).json()

    assert (slide["mpp"], slide["mpp_source"]) == (0.5, "property")
    (doubt,) = slide["warnings"]
    assert doubt["code"] == "mpp_contradicted"
    assert "objective of 40×" in doubt["detail"]


async def test_colours_that_the_file_denies_are_said_or_refused(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """The recipe's tiles are YCbCr by their numbers and tables; OpenSlide reads them where one is missing."""
    whole = tmp_path / "slide.svs"
    with TiffFile(write_slide(tmp_path / "sound.svs", Recipe())) as tiff:
        at, byte_count_at = (
            tiff.pages[0].tags[name].valueoffset for name in ("PhotometricInterpretation", "TileByteCounts")
        )
    data = bytearray((tmp_path / "sound.svs").read_bytes())
    data[at] = 2
    whole.write_bytes(data)
    data[byte_count_at : byte_count_at + 4] = bytes(4)

    said = (await upload(client, whole.read_bytes())).json()
    refused = await upload(client, bytes(data))

    assert [it["code"] for it in said["warnings"]] == ["colors_contradicted"]
    assert (refused.status_code, refused.json()["code"]) == (422, "unreadable_slide")
    assert "another colour space" in refused.json()["detail"]


async def test_the_same_content_again_is_the_same_slide(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    first = await upload(client, sample_slide)
    second = await upload(client, sample_slide, "other name.svs")

    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == first.json()
    assert (await parts.jobs.depth("routine")).queued == 1


async def test_the_same_content_at_once_is_one_slide_and_one_job(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    answers = await asyncio.gather(*(upload(client, sample_slide) for _ in range(3)))

    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.text for answer in answers}) == 1
    assert (await parts.jobs.depth("routine")).queued == 1
    assert list(parts.store.staging_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"", 415, "unsupported_format"), (b"not a slide", 415, "unsupported_format"), (bytes(100_000), 415, None)],
)
async def test_what_is_not_a_slide_is_refused(
    client: httpx.AsyncClient, parts: Parts, content: bytes, status: int, code: str | None
) -> None:
    refused = problem_of(await upload(client, content), status)

    assert code in (None, refused)
    assert await parts.store.folders("tenants/default/slides") == []
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_a_slide_beyond_the_limit_is_refused(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    async with client_of(make_app(max_upload_bytes=1000)) as client:
        assert problem_of(await upload(client, sample_slide), 413) == "slide_too_large"


async def test_a_full_disk_is_told(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    async with client_of(make_app(disk_reserve_bytes=2**60)) as client:
        assert problem_of(await upload(client, sample_slide), 507) == "storage_full"


async def test_a_body_that_is_no_form_is_refused(client: httpx.AsyncClient) -> None:
    assert problem_of(await client.post("/v1/slides", json={"file": "x"}), 422) == "invalid_request"
    assert problem_of(await client.post("/v1/slides"), 422) == "invalid_request"


async def test_an_upload_may_be_larger_than_any_json(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    async with client_of(make_app(max_body_bytes=100)) as client:
        assert (await upload(client, sample_slide)).status_code == 202


async def test_too_many_uploads_at_once_are_refused(make_app: Callable[..., FastAPI], sample_slide: bytes) -> None:
    app = make_app(max_concurrent_uploads=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield b""

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with client_of(app) as client:
        first = asyncio.create_task(client.post("/v1/slides", content=slowly(), headers=headers))
        await begun.wait()
        refused = await upload(client, sample_slide)
        go_on.set()
        await first

        assert problem_of(refused, 429) == "overloaded"
        assert refused.headers["Retry-After"]
        assert (await upload(client, sample_slide)).status_code == 202


async def test_without_redis_an_upload_is_refused_and_nothing_is_kept(
    make_app: Callable[..., FastAPI], sample_slide: bytes
) -> None:
    app = make_app(redis_url=SecretStr(f"redis://127.0.0.1:{free_loopback_port()}/0"))
    async with client_of(app) as client:
        refused = await upload(client, sample_slide)

    assert problem_of(refused, 503) == "queue_unavailable"
    assert refused.headers["Retry-After"]
    assert list(app.state.parts.store.staging_dir.iterdir()) == []


async def test_an_index_without_its_folder_asks_for_it(client: httpx.AsyncClient) -> None:
    refused = await upload(client, b"any", "Doe^Jane.mrxs")

    assert problem_of(refused, 415) == "unsupported_format"
    assert "all files of the folder" in refused.json()["detail"]
    assert "Doe" not in refused.json()["detail"]
