"""/v1/uploads through the whole API: a real store, a real Redis. A refused request leaves the offset as it was."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_parts import client_of, upload
from fastapi import FastAPI
from served_app import served
from slides_of_several import write_vms
from starlette.requests import ClientDisconnect

from server.api.dependencies import receive_upload
from server.api.parts import Parts
from server.errors import InvalidRequest
from server.flow.receive_upload import UploadPart
from server.identity.api_keys import create_key
from server.uploads.resumable.append_bytes import Checksum
from server.uploads.resumable.upload_record import until

TUS = {"Tus-Resumable": "1.0.0"}
BODY = TUS | {"Content-Type": "application/offset+octet-stream"}


def metadata(**texts: str) -> str:
    return ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in texts.items())


def sent(**texts: str) -> dict[str, str]:
    return {"Upload-Metadata": metadata(**texts)}


async def create(client: httpx.AsyncClient, length: int, **texts: str) -> str:
    """The path of a new upload."""
    headers = TUS | {"Upload-Length": str(length)} | sent(**(texts or {"filename": "Doe^Jane.svs"}))
    created = await client.post("/v1/uploads", headers=headers)
    assert created.status_code == 201, created.text
    return created.headers["Location"]


async def patch(client: httpx.AsyncClient, path: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    return await client.patch(path, content=content, headers=BODY | {"Upload-Offset": str(offset)} | headers)


async def offset_of(client: httpx.AsyncClient, path: str) -> int:
    found = await client.head(path, headers=TUS)
    assert found.status_code == 200, found.status_code
    return int(found.headers["Upload-Offset"])


def checksum(algorithm: str, content: bytes) -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


async def kept(parts: Parts) -> list[str]:
    """What lies in the store below uploads, and in the staging folder."""
    root = parts.store.local_root
    assert root is not None
    found = [*root.glob("tenants/*/uploads/**/*"), *parts.store.staging_dir.iterdir()]
    return sorted(path.name for path in found if path.is_file())


async def test_what_is_supported_can_be_asked(client: httpx.AsyncClient) -> None:
    told = await client.options("/v1/uploads")

    assert told.status_code == 204
    assert told.headers["Tus-Version"] == "1.0.0"
    extensions = {"creation", "creation-with-upload", "checksum", "expiration", "termination"}
    assert set(told.headers["Tus-Extension"].split(",")) == extensions
    assert told.headers["Tus-Checksum-Algorithm"] == "sha256,sha1"


async def test_a_slide_in_pieces_is_the_slide_that_one_request_makes(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    path = await create(client, len(sample_slide))
    first = await patch(client, path, 0, sample_slide[:1000])
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, "1000")
    assert "Eyepiece-Slide-Id" not in first.headers
    assert await offset_of(client, path) == 1000

    last = await patch(client, path, 1000, sample_slide[1000:])

    slide_id = hashlib.sha256(sample_slide).hexdigest()
    assert last.status_code == 204
    assert last.headers["Eyepiece-Slide-Id"] == slide_id
    slide = (await client.get(f"/v1/slides/{slide_id}")).json()
    assert (slide["status"], slide["filename"]) == ("queued", "Doe^Jane.svs")
    resumed = await client.head(path, headers=TUS)
    assert resumed.headers["Upload-Offset"] == resumed.headers["Upload-Length"] == str(len(sample_slide))
    assert resumed.headers["Eyepiece-Slide-Id"] == slide_id
    told = (await client.get(path)).json()
    assert (told["status"], told["slide_id"]) == ("finished", slide_id)
    assert (await upload(client, sample_slide)).status_code == 200
    assert await kept(parts) == ["outcome.json", "upload.json"]


@pytest.mark.parametrize("checked", [False, True])
async def test_the_bytes_of_a_request_that_breaks_off_are_kept_unless_it_has_a_checksum(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes, checked: bool
) -> None:
    path = await create(client, len(sample_slide))

    async def broken() -> AsyncIterator[bytes]:
        yield sample_slide[:700]
        raise ClientDisconnect

    said = Checksum("sha256", hashlib.sha256(sample_slide).digest()) if checked else None
    part = UploadPart(0, broken(), len(sample_slide), said)
    with pytest.raises(InvalidRequest, match="was cut off"):
        await receive_upload(parts).append("default", path.rsplit("/", 1)[-1], part)

    assert await offset_of(client, path) == (0 if checked else 700)


async def test_a_client_that_hangs_up_goes_on_where_the_server_is(app: FastAPI, sample_slide: bytes) -> None:
    """How much of what was on the line has come is the server's to say."""
    async with served(app) as client:
        path = await create(client, len(sample_slide))
        headers = BODY | {"Upload-Offset": "0", "Content-Length": str(len(sample_slide)), "Host": "localhost"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(f"PATCH {path} HTTP/1.1\r\n{head}\r\n".encode() + sample_slide[:700])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

        offset = await offset_of(client, path)
        assert offset in (0, 700)
        last = await patch(client, path, offset, sample_slide[offset:])
        if last.status_code == 409:  # the request had not begun when HEAD was answered
            offset = int(last.headers["Upload-Offset"])
            last = await patch(client, path, offset, sample_slide[offset:])
        assert last.headers["Eyepiece-Slide-Id"] == hashlib.sha256(sample_slide).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
async def test_checksums_are_held(client: httpx.AsyncClient, sample_slide: bytes, algorithm: str) -> None:
    path = await create(client, len(sample_slide))
    piece = sample_slide[:5000]

    wrong = await patch(client, path, 0, piece, **{"Upload-Checksum": checksum(algorithm, b"others")})
    assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum_mismatch")
    assert await offset_of(client, path) == 0

    right = await patch(client, path, 0, piece, **{"Upload-Checksum": checksum(algorithm, piece)})
    assert (right.status_code, await offset_of(client, path)) == (204, 5000)
    rest = await patch(client, path, 5000, sample_slide[5000:])
    assert rest.headers["Eyepiece-Slide-Id"] == hashlib.sha256(sample_slide).hexdigest()


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 4096):
        yield content[start : start + 4096]


REFUSED: dict[str, tuple[int, str, int, Any, dict[str, str]]] = {
    "another offset": (409, "wrong_offset", 5, b"xx", {}),
    "more than the length": (413, "upload_too_long", 10, bytes(91), {}),
    "more than the length, unannounced": (413, "upload_too_long", 10, 91, {}),
    "another checksum": (460, "checksum_mismatch", 10, b"xx", {"Upload-Checksum": checksum("sha1", b"x")}),
    "an unknown kind of checksum": (400, "unknown_checksum", 10, b"xx", {"Upload-Checksum": "md5 AAAA"}),
    "no checksum in it": (400, "unknown_checksum", 10, b"xx", {"Upload-Checksum": "sha1"}),
    "another type": (415, "wrong_content_type", 10, b"xx", {"Content-Type": "application/octet-stream"}),
    "another version": (412, "unknown_tus_version", 10, b"xx", {"Tus-Resumable": "0.2.2"}),
    "no number": (422, "invalid_request", 10, b"xx", {"Upload-Offset": "-10"}),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_request_leaves_the_offset_as_it_was(client: httpx.AsyncClient, name: str) -> None:
    status, code, offset, content, headers = REFUSED[name]
    path = await create(client, 100)
    await patch(client, path, 0, b"0123456789")

    refused = await patch(client, path, offset, _chunks(bytes(content)) if content == 91 else content, **headers)

    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers["Tus-Resumable"] == "1.0.0"
    assert await offset_of(client, path) == 10
    if code == "wrong_offset":
        assert refused.headers["Upload-Offset"] == "10"
    if code == "unknown_tus_version":
        assert refused.headers["Tus-Version"] == "1.0.0"


async def test_who_has_no_key_or_another_tenants_writes_nothing(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(require_key=True)
    keys = [await create_key(app.state.parts.store, tenant) for tenant in ("a", "b")]
    async with client_of(app, keys[0]) as own, client_of(app, keys[1]) as other, client_of(app) as nobody:
        path = await create(own, 100)
        assert (await patch(nobody, path, 0, b"xx")).status_code == 401
        assert (await patch(other, path, 0, b"xx")).status_code == 404
        assert (await other.head(path, headers=TUS)).status_code == 404
        assert (await other.delete(path, headers=TUS)).status_code == 404
        assert await offset_of(own, path) == 0


async def test_the_second_of_two_writers_is_refused(client: httpx.AsyncClient, sample_slide: bytes) -> None:
    path = await create(client, len(sample_slide))
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def busy() -> AsyncIterator[bytes]:
        yield sample_slide[:1000]
        begun.set()
        sent = 1000
        while not go_on.is_set():  # never silent
            yield sample_slide[sent : sent + 1]
            sent += 1
            await asyncio.sleep(0.05)
        yield sample_slide[sent:]

    first = asyncio.create_task(patch(client, path, 0, busy()))
    await begun.wait()
    second = await patch(client, path, 0, sample_slide)
    go_on.set()

    assert (second.status_code, second.json()["code"]) == (423, "upload_locked")
    assert second.headers["Retry-After"]
    assert (await first).headers["Eyepiece-Slide-Id"] == hashlib.sha256(sample_slide).hexdigest()


async def test_a_writer_to_whom_nothing_comes_gives_way(client: httpx.AsyncClient, sample_slide: bytes) -> None:
    """A client whose line broke comes back before the server has noticed; what came before is kept."""
    path = await create(client, len(sample_slide))
    begun = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        yield sample_slide[:1000]
        begun.set()
        await asyncio.sleep(60)

    first = asyncio.create_task(patch(client, path, 0, silent()))
    await begun.wait()
    await asyncio.sleep(1.1)

    assert await offset_of(client, path) == 1000
    assert (await first).status_code == 423
    assert (await patch(client, path, 1000, sample_slide[1000:])).headers["Eyepiece-Slide-Id"]


async def test_another_replica_goes_on_and_knows_the_hash(
    make_app: Callable[..., FastAPI], client: httpx.AsyncClient, sample_slide: bytes
) -> None:
    path = await create(client, len(sample_slide))
    await patch(client, path, 0, sample_slide[:1000])
    async with client_of(make_app()) as other:
        await patch(other, path, 1000, sample_slide[1000:3000])
    await patch(client, path, 3000, sample_slide[3000:3100], **{"Upload-Checksum": checksum("sha1", b"")})
    async with client_of(make_app()) as third:
        last = await patch(third, path, 3000, sample_slide[3000:])
    assert last.headers["Eyepiece-Slide-Id"] == hashlib.sha256(sample_slide).hexdigest()


async def test_what_a_killed_process_wrote_without_verifying_is_not_counted(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    path = await create(client, 100)
    await patch(client, path, 0, b"0123456789")
    record = await parts.upload_shelf.require("default", path.rsplit("/", 1)[-1])
    await parts.upload_shelf.keep(record.model_copy(update={"verified_bytes": 10}))
    parts.upload_shelf.data(record).write(10, b"half of a piece with a checksum")

    assert (await client.get(path)).json()["offset_bytes"] == 10
    assert await offset_of(client, path) == 10
    assert parts.upload_shelf.data(record).size_bytes() == 10


async def test_a_process_that_died_before_the_slide_was_made_is_made_up_for(
    client: httpx.AsyncClient, parts: Parts, sample_slide: bytes
) -> None:
    path = await create(client, len(sample_slide))
    record = await parts.upload_shelf.require("default", path.rsplit("/", 1)[-1])
    parts.upload_shelf.data(record).write(0, sample_slide)

    await receive_upload(parts).sweep("default")

    told = (await client.get(path)).json()
    assert (told["status"], told["slide_id"]) == ("finished", hashlib.sha256(sample_slide).hexdigest())


async def test_the_first_bytes_may_come_with_the_creation(client: httpx.AsyncClient, sample_slide: bytes) -> None:
    headers = BODY | {"Upload-Length": str(len(sample_slide))} | sent(filename="a.svs")
    whole = await client.post("/v1/uploads", content=sample_slide, headers=headers)

    assert (whole.status_code, whole.headers["Upload-Offset"]) == (201, str(len(sample_slide)))
    assert whole.headers["Eyepiece-Slide-Id"] == hashlib.sha256(sample_slide).hexdigest()
    wrong = headers | {"Upload-Checksum": checksum("sha1", b"")}
    assert (await client.post("/v1/uploads", content=sample_slide[:9], headers=wrong)).status_code == 460


async def test_what_is_no_slide_is_refused_and_gone(client: httpx.AsyncClient, parts: Parts) -> None:
    path = await create(client, 11)

    refused = await patch(client, path, 0, b"hello there")

    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_format")
    assert (await client.head(path, headers=TUS)).status_code == 410
    told = (await client.get(path)).json()
    assert (told["status"], told["error"]["code"]) == ("refused", "unsupported_format")
    assert await kept(parts) == ["outcome.json", "upload.json"]
    assert (await client.get("/v1/usage")).json()["stored_bytes"] == 0


async def test_an_upload_that_is_given_up_leaves_nothing(client: httpx.AsyncClient, parts: Parts) -> None:
    path = await create(client, 100)
    await patch(client, path, 0, b"0123456789")
    assert (await client.get("/v1/usage")).json()["stored_bytes"] == 100

    assert (await client.delete(path, headers=TUS)).status_code == 204

    assert (await client.head(path, headers=TUS)).status_code == 404
    assert (await patch(client, path, 10, b"x")).status_code == 404
    assert await kept(parts) == []
    assert (await client.get("/v1/usage")).json()["stored_bytes"] == 0


async def test_an_expired_upload_is_gone_and_swept(client: httpx.AsyncClient, parts: Parts) -> None:
    path, other = await create(client, 100), await create(client, 100)
    await patch(client, path, 0, b"0123456789")
    record = await parts.upload_shelf.require("default", path.rsplit("/", 1)[-1])
    await parts.upload_shelf.keep(record.model_copy(update={"expires_at": until(0) - timedelta(seconds=9)}))

    refused = await patch(client, path, 10, b"x")
    assert (refused.status_code, refused.json()["code"]) == (410, "upload_gone")
    assert parts.upload_shelf.data(record).size_bytes() == 10
    assert await receive_upload(parts).sweep("default") == 1

    assert (await client.head(path, headers=TUS)).status_code == 404
    assert await offset_of(client, other) == 0
    assert await kept(parts) == ["upload.json"]
    assert (await client.get("/v1/usage")).json()["stored_bytes"] == 100


async def test_files_of_one_slide_are_finished_by_one_word(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    write_vms(tmp_path / "vms")
    files = {path.name: path.read_bytes() for path in sorted((tmp_path / "vms").iterdir())}
    paths = {name: await create(client, len(content), slide="case 17", path=name) for name, content in files.items()}
    asked = {"slide": "case 17", "files": len(files)}
    for name, content in list(files.items())[1:]:
        assert "Eyepiece-Slide-Id" not in (await patch(client, paths[name], 0, content)).headers
    early = await client.post("/v1/uploads/slides", json=asked)
    assert (early.status_code, early.json()["code"]) == (409, "upload_incomplete")
    name, content = next(iter(files.items()))
    assert paths[name].rsplit("/", 1)[-1] in early.json()["detail"]
    await patch(client, paths[name], 0, content)
    assert (await client.post("/v1/uploads/slides", json=asked | {"files": 99})).status_code == 409

    made = await client.post("/v1/uploads/slides", json=asked)

    assert made.status_code == 202, made.text
    assert made.json()["vendor"] == "hamamatsu"
    assert (await client.post("/v1/uploads/slides", json=asked)).json()["id"] == made.json()["id"]
    form = [("file", (name, content)) for name, content in files.items()]
    assert (await client.post("/v1/slides", files=form)).json()["id"] == made.json()["id"]
    assert (await client.head(paths[name], headers=TUS)).headers["Eyepiece-Slide-Id"] == made.json()["id"]
    assert "data" not in await kept(parts)
    assert (await client.post("/v1/uploads/slides", json={"slide": "another"})).status_code == 404


@pytest.mark.parametrize("path", ["../a.dcm", "/a.dcm", "a//b", ""])
async def test_files_of_a_slide_have_plain_paths(client: httpx.AsyncClient, path: str) -> None:
    headers = TUS | {"Upload-Length": "9"} | sent(slide="s", path=path)
    refused = await client.post("/v1/uploads", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 422),
        ({"Upload-Length": "x"}, 422),
        ({"Upload-Length": "0"}, 415),
        ({"Upload-Length": str(2**40)}, 413),
        ({"Upload-Length": "9", "Upload-Defer-Length": "1"}, 422),
        ({"Upload-Length": "9", "Upload-Concat": "partial"}, 422),
        ({"Upload-Length": "9", "Upload-Metadata": "filename &&&"}, 422),
        ({"Upload-Length": "9", "Tus-Resumable": "2"}, 412),
    ],
)
async def test_what_cannot_be_begun_is_refused(
    client: httpx.AsyncClient, parts: Parts, headers: dict[str, str], status: int
) -> None:
    assert (await client.post("/v1/uploads", headers=TUS | headers)).status_code == status
    assert await kept(parts) == []


async def test_limits_are_those_of_every_upload(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(quota_stored_bytes=150, max_open_uploads_per_tenant=2)
    async with client_of(app) as client:
        await create(client, 100)
        headers = TUS | {"Upload-Length": "100"}
        assert (await client.post("/v1/uploads", headers=headers)).json()["code"] == "quota_exceeded"
        await create(client, 10)
        assert (await client.post("/v1/uploads", headers=TUS | {"Upload-Length": "9"})).status_code == 429
    full = make_app(disk_reserve_bytes=2**60)
    async with client_of(full) as client:
        assert (await client.post("/v1/uploads", headers=TUS | {"Upload-Length": "9"})).status_code == 507


async def test_a_client_that_can_post_alone_overrides_the_method(client: httpx.AsyncClient) -> None:
    path = await create(client, 100)
    headers = BODY | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await client.post(path, content=b"01234", headers=headers)).status_code == 204
    assert await offset_of(client, path) == 5
    assert (await client.post(path, headers=TUS | {"X-HTTP-Method-Override": "PUT"})).status_code == 405
    assert (await client.post(path, headers=TUS | {"X-HTTP-Method-Override": "DELETE"})).status_code == 204


async def test_over_a_bucket_an_upload_is_segments_until_it_is_a_slide(
    make_app: Callable[..., FastAPI], sample_slide: bytes
) -> None:
    app = make_app(store_url="memory:///")
    parts: Parts = app.state.parts
    async with client_of(app) as client:
        path = await create(client, len(sample_slide))
        await patch(client, path, 0, sample_slide[:1000])
        wrong = await patch(client, path, 1000, b"xx", **{"Upload-Checksum": checksum("sha256", b"")})
        assert (wrong.status_code, await offset_of(client, path)) == (460, 1000)
        assert list(parts.store.staging_dir.iterdir()) == []
        last = await patch(client, path, 1000, sample_slide[1000:])
        slide_id = hashlib.sha256(sample_slide).hexdigest()
        assert last.headers["Eyepiece-Slide-Id"] == slide_id
        assert (await client.get(f"/v1/slides/{slide_id}")).json()["size_bytes"] == len(sample_slide)
    assert list(parts.store.staging_dir.iterdir()) == []
    assert await parts.store.stored_bytes("tenants/default/uploads") < 2000
