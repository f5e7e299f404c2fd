"""The page's files: what is sent with them, and what is not there."""

import gzip
from collections.abc import Callable

import httpx
import pytest
from api_parts import client_of
from fastapi import FastAPI

from web.files import read_page


async def test_the_page_needs_no_key_and_holds_nothing_of_anybody(make_app: Callable[..., FastAPI]) -> None:
    async with client_of(make_app(require_key=True)) as client:
        page = await client.get("/")
        assert (await client.get("/v1/models")).status_code == 401
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.content == read_page()["index.html"].content


@pytest.mark.parametrize("path", ["/", "/page/scripts/main.js", "/page/vendor/openseadragon/openseadragon.min.js"])
async def test_a_file_is_sent_once_compressed_and_under_the_policy(client: httpx.AsyncClient, path: str) -> None:
    packed = await client.get(path, headers={"Accept-Encoding": "gzip"})
    plain = await client.get(path, headers={"Accept-Encoding": "identity"})
    again = await client.get(path, headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]})
    head = await client.head(path)

    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == plain.content
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert (again.status_code, again.content) == (304, b"")
    assert (head.status_code, head.content) == (200, b"")
    for answer in (packed, plain, again):
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(policy)
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/page/", "/page/no.js", "/page/%2e%2e/files.py", "/page/../files.py", "/page//etc/passwd"]
)
async def test_what_is_no_file_of_the_page_is_not_there(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


def test_equal_files_are_equal_on_every_replica() -> None:
    one, other = read_page.__wrapped__(), read_page.__wrapped__()
    assert one == other
    assert all(gzip.decompress(file.gzipped) == file.content for file in one.values())
