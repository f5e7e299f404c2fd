"""What HTTP expects beside the answer itself: caches, ranges, HEAD, methods, and nothing from other sites."""

import re

import httpx
import pytest
from api_parts import client_of, problem_of, stored_slide
from fastapi import FastAPI

from server.api.parts import Parts
from server.slides.slide_record import SlideRecord

FEATURES = bytes(range(256)) * 1000


@pytest.fixture
async def slide(parts: Parts) -> SlideRecord:
    record = await stored_slide(parts, ready=True)
    await parts.store.put(record.paths.features(record.encoder_id), FEATURES)
    return record


@pytest.mark.parametrize("path", ["/v1/slides", "/v1/models", "/livez", "/nowhere", "/v1/slides/x", "/openapi.json"])
async def test_json_is_neither_kept_nor_guessed_at(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_bug_has_the_headers_too(app: FastAPI, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.usage, "report", None)
    async with client_of(app) as client:
        answer = await client.get("/v1/usage")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (500, "no-store")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("what", ["thumbnail", "features"])
async def test_a_version_that_the_client_has_is_not_sent_again(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def picture(*_: object) -> bytes:
        return b"\xff\xd8"

    monkeypatch.setattr(parts.thumbnails, "picture", picture)
    path = f"/v1/slides/{slide.id}/{what}"
    etag = (await client.get(path)).headers["ETag"]

    for asked in (etag, f'"other", W/{etag}', "*"):
        unchanged = await client.get(path, headers={"If-None-Match": asked})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", etag)
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_features_written_anew_are_another_version(
    client: httpx.AsyncClient, parts: Parts, slide: SlideRecord
) -> None:
    path = f"/v1/slides/{slide.id}/features"
    etag = (await client.get(path)).headers["ETag"]
    await parts.store.put(slide.paths.features(slide.encoder_id), b"others")
    answer = await client.get(path, headers={"If-None-Match": etag, "Range": "bytes=0-2", "If-Range": etag})
    assert (answer.status_code, answer.content) == (200, b"others")


async def test_head_says_what_get_would(client: httpx.AsyncClient, slide: SlideRecord) -> None:
    features = await client.head(f"/v1/slides/{slide.id}/features")
    assert (features.status_code, features.content) == (200, b"")
    assert features.headers["Content-Length"] == str(len(FEATURES))
    assert features.headers["Accept-Ranges"] == "bytes"
    thumbnail = await client.head(f"/v1/slides/{slide.id}/thumbnail")
    assert (thumbnail.status_code, thumbnail.headers["Content-Type"]) == (200, "image/jpeg")
    assert "Content-Length" not in thumbnail.headers
    assert (await client.head(f"/v1/slides/{'b' * 64}/features")).status_code == 404


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=70000-200000", 70_000, 200_000),
        ("bytes=255999-", 255_999, 255_999),
        ("bytes=-1", 255_999, 255_999),
        ("bytes=-9999999", 0, 255_999),
        ("bytes=10-9999999", 10, 255_999),
    ],
)
async def test_a_range_of_features(
    client: httpx.AsyncClient, slide: SlideRecord, asked: str, first: int, last: int
) -> None:
    part = await client.get(f"/v1/slides/{slide.id}/features", headers={"Range": asked})
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(FEATURES)}"
    assert part.headers["Content-Length"] == str(last - first + 1)
    assert part.content == FEATURES[first : last + 1]


@pytest.mark.parametrize("asked", ["bytes=5-4", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes=٣-٤"])
async def test_a_range_that_is_not_understood_is_all(client: httpx.AsyncClient, slide: SlideRecord, asked: str) -> None:
    answer = await client.get(f"/v1/slides/{slide.id}/features", headers={"Range": asked.encode()})
    assert (answer.status_code, len(answer.content)) == (200, len(FEATURES))


@pytest.mark.parametrize("asked", ["bytes=256000-", "bytes=-0"])
async def test_a_range_behind_the_end_is_refused(client: httpx.AsyncClient, slide: SlideRecord, asked: str) -> None:
    refused = await client.get(f"/v1/slides/{slide.id}/features", headers={"Range": asked})
    assert problem_of(refused, 416) == "range_not_satisfiable"
    assert refused.headers["Content-Range"] == "bytes */256000"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/slides", "GET, POST"),
        ("/v1/slides/x", "DELETE, GET, PATCH"),
        ("/v1/slides/x/features", "GET, HEAD, PUT"),
        ("/v1/slides/x/thumbnail", "GET, HEAD"),
        ("/v1/slides/x/tiles/0/0_0.jpg", "GET"),
        ("/v1/slides/x/levels", "GET, HEAD"),
        ("/v1/conversations/x", "DELETE, GET"),
        ("/v1/uploads/slides", "POST"),
        ("/livez", "GET"),
    ],
)
async def test_every_method_of_an_address_is_named(client: httpx.AsyncClient, path: str, methods: str) -> None:
    refused = await client.request("TRACE", path)
    assert problem_of(refused, 405) == "method_not_allowed"
    assert refused.headers["Allow"] == methods


@pytest.mark.parametrize("path", ["/v1/slides/", "/livez/", "/docs/"])
async def test_no_redirect_to_the_host_that_was_named(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "evil.example" not in str(answer.headers) + answer.text


async def test_the_page_loads_nothing_and_shows_every_route(client: httpx.AsyncClient, app: FastAPI) -> None:
    page = await client.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page.text)
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in page.text


async def test_the_document_tells_of_heads_and_ranges(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert set(paths["/v1/slides/{slide_id}/features"]) == {"get", "head", "put"}
    assert {"200", "206", "304", "416"} <= set(paths["/v1/slides/{slide_id}/features"]["get"]["responses"])
    assert {"200", "304"} <= set(paths["/v1/slides/{slide_id}/thumbnail"]["head"]["responses"])
