"""Precomputed features through the whole API, as a slide of their own and attached to one; a fake encode."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import tifffile
from api_parts import client_of, encode_job, events_of, problem_of, running_worker, stored_slide, upload
from fakes import FakeEncode, sample_embedding
from fastapi import FastAPI
from features_files import COORDS, TRIDENT_ATTRIBUTES, tile_features, write_hdf5

from encoders.caller import Caller
from encoders.features_file import write_given_features
from encoders.precomputed.given_features import GivenTiles, TileStatements
from encoders.types import SlideEmbedding, SlideFile
from server.api.parts import Parts


@pytest.fixture
def features(tmp_path: Path) -> bytes:
    return write_hdf5(tmp_path / "given.h5", **TRIDENT_ATTRIBUTES).read_bytes()


class GivenEncode(FakeEncode):
    """Writes a real features file, and remembers what it was given."""

    def __call__(
        self, slide: SlideFile, mpp_override: float | None, features_path: Path, caller: Caller
    ) -> SlideEmbedding:
        self.given = (slide.features_sha256, slide.path.read_bytes())
        said = TileStatements(width=2048, height=1536, mpp=0.5)
        write_given_features(features_path, GivenTiles(tile_features(), COORDS, said))
        return sample_embedding(slide.slide_id, self.encoder_id)


async def attach(client: httpx.AsyncClient, slide_id: str, content: bytes) -> httpx.Response:
    return await client.put(f"/v1/slides/{slide_id}/features", files={"file": ("features.h5", content)})


async def encode_all(parts: Parts, client: httpx.AsyncClient, slide: dict[str, Any]) -> GivenEncode:
    encode = GivenEncode(slide["encoder_id"])
    async with running_worker(parts.jobs, encode_job(parts, encode).run):
        events = events_of(await client.get(f"/v1/slides/{slide['id']}/events"))
    assert events[-1][0] == "ready"
    return encode


async def test_features_become_a_slide_whatever_the_file_is_called(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    answer = await upload(client, features, "Doe^Jane.svs")

    slide = answer.json()
    assert (answer.status_code, slide["status"], slide["vendor"]) == (202, "queued", "features")
    assert slide["id"] == hashlib.sha256(features).hexdigest()
    assert (slide["width"], slide["height"], slide["mpp"]) == (None, None, None)
    assert (await upload(client, features)).status_code == 200

    encode = await encode_all(parts, client, slide)

    ready = (await client.get(f"/v1/slides/{slide['id']}")).json()
    assert encode.given == (None, features)
    assert (ready["status"], ready["width"], ready["height"], ready["mpp"]) == ("ready", 2048, 1536, 0.5)
    assert (await client.get(f"/v1/slides/{slide['id']}/features")).content.startswith(b"\x89HDF")


async def test_there_is_no_picture_of_features(client: httpx.AsyncClient, features: bytes) -> None:
    slide = (await upload(client, features)).json()

    for picture in ("thumbnail", "tiles.dzi", "tiles/0/0_0.jpg"):
        answer = await client.get(f"/v1/slides/{slide['id']}/{picture}")
        assert problem_of(answer, 404) == "no_pixels"
        assert "uploaded as features" in answer.json()["detail"]


async def test_slide_features_leave_no_tile_features_to_download(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts, ready=True, vendor="features")
    await parts.store.delete(record.paths.features(record.encoder_id))

    answer = await client.get(f"/v1/slides/{record.id}/features")

    assert problem_of(answer, 404) == "not_found"
    assert "no tile features" in answer.json()["detail"]


@pytest.mark.parametrize("body", [{"mpp": 0.5}, {"source": "pixels"}])
async def test_features_have_no_pixels_to_go_back_to(
    client: httpx.AsyncClient, features: bytes, body: dict[str, Any]
) -> None:
    slide = (await upload(client, features)).json()

    assert problem_of(await client.post(f"/v1/slides/{slide['id']}/encode", json=body), 422) == "invalid_request"
    assert problem_of(await attach(client, slide["id"], features), 422) == "invalid_request"
    assert (await client.get(f"/v1/slides/{slide['id']}")).json() == slide


async def test_attached_features_are_encoded_instead_of_the_pixels(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    record = await stored_slide(parts, ready=True, vendor="aperio", width=2048, height=1536)

    answer = await attach(client, record.id, features)

    slide = answer.json()
    assert (answer.status_code, slide["status"], slide["id"]) == (202, "queued", record.id)
    assert slide["encoder_id"] != record.encoder_id
    assert set(slide) == set((await client.get(f"/v1/slides/{record.id}")).json())

    encode = await encode_all(parts, client, slide)

    ready = (await client.get(f"/v1/slides/{record.id}")).json()
    assert encode.given == (hashlib.sha256(features).hexdigest(), features)
    assert (ready["status"], ready["vendor"], ready["width"], ready["tile_count"]) == ("ready", "aperio", 2048, 7)
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_attaching_the_same_features_again_changes_nothing(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    record = await stored_slide(parts)
    first = await attach(client, record.id, features)
    second = await attach(client, record.id, features)

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert (await parts.jobs.depth("routine")).queued == 1

    await encode_all(parts, client, first.json())

    third = await attach(client, record.id, features)
    assert (third.status_code, third.json()["status"]) == (200, "ready")


async def test_attaching_takes_the_job_for_the_pixels_back(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    record = await stored_slide(parts)
    await parts.jobs.enqueue(record)

    await attach(client, record.id, features)

    assert await parts.jobs.find(record) is None
    assert (await parts.jobs.depth("routine")).queued == 1


async def test_a_wish_goes_back_to_the_pixels_at_no_cost(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    record = await stored_slide(parts, ready=True)
    await attach(client, record.id, features)

    back = (await client.post(f"/v1/slides/{record.id}/encode", json={"source": "pixels"})).json()

    assert (back["status"], back["encoder_id"]) == ("ready", record.encoder_id)
    assert (await parts.jobs.depth("routine")).queued == 0


async def test_another_wish_leaves_the_features_attached(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    record = await stored_slide(parts)
    attached = (await attach(client, record.id, features)).json()
    url = f"/v1/slides/{record.id}/encode"

    urgent = (await client.post(url, json={"priority": "urgent"})).json()
    refused = await client.post(url, json={"mpp": 0.25})
    both = (await client.post(url, json={"mpp": 0.25, "source": "pixels"})).json()

    assert urgent["encoder_id"] == attached["encoder_id"]
    assert problem_of(refused, 422) == "invalid_request"
    assert both["encoder_id"] not in (attached["encoder_id"], record.encoder_id)
    assert (await attach(client, record.id, features)).json()["encoder_id"] == attached["encoder_id"]


async def test_only_one_features_file_can_be_attached(client: httpx.AsyncClient, parts: Parts, features: bytes) -> None:
    record = await stored_slide(parts)
    url = f"/v1/slides/{record.id}/features"

    no_features = await attach(client, record.id, b"II*\x00 a slide")
    empty = await attach(client, record.id, b"")
    two = await client.put(url, files=[("file", ("a", features)), ("file", ("b", features))])
    no_form = await client.put(url, json={})

    assert problem_of(no_features, 415) == problem_of(empty, 415) == "unsupported_format"
    assert problem_of(two, 422) == problem_of(no_form, 422) == "invalid_request"
    assert (await parts.slides.require("default", record.id)).encoder_id == record.encoder_id
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_features_may_be_larger_than_any_json(make_app: Callable[..., FastAPI], features: bytes) -> None:
    app = make_app(max_body_bytes=100)
    record = await stored_slide(app.state.parts)

    async with client_of(app) as client:
        assert (await attach(client, record.id, features)).status_code == 202


async def test_deleting_the_slide_deletes_its_features(
    client: httpx.AsyncClient, parts: Parts, features: bytes, tmp_path: Path
) -> None:
    record = await stored_slide(parts)
    await attach(client, record.id, features)

    await client.delete(f"/v1/slides/{record.id}")

    left = [
        path.relative_to(tmp_path / "store").as_posix() for path in (tmp_path / "store").rglob("*") if path.is_file()
    ]
    assert left == ["index/state/default.json"]  # how far the walk through the archive is; nothing of a slide


async def test_features_for_a_slide_that_is_deleted_meanwhile_leave_nothing(
    client: httpx.AsyncClient, parts: Parts, features: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await stored_slide(parts)
    publish = parts.store.publish_file

    async def publish_and_lose(path: Path, key: str, *, replace: bool) -> bool:
        published = await publish(path, key, replace=replace)
        await parts.store.delete(record.paths.record)
        return published

    monkeypatch.setattr(parts.store, "publish_file", publish_and_lose)

    assert problem_of(await attach(client, record.id, features), 404) == "not_found"
    assert [path for path in (tmp_path / "store" / "tenants").rglob("*") if path.is_file()] == []


async def test_features_of_another_slide_are_refused_and_the_slide_stays_ready(
    client: httpx.AsyncClient, parts: Parts, features: bytes
) -> None:
    record = await stored_slide(parts, ready=True, vendor="aperio", width=2304, height=1920, mpp=0.5)

    assert problem_of(await attach(client, record.id, features), 422) == "unusable_features"

    assert (await client.get(f"/v1/slides/{record.id}")).json()["status"] == "ready"
    assert await parts.store.stored_bytes(record.paths.folder) < len(features)


async def test_features_are_compared_with_the_tissue_of_the_slide(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    """Only what is of half of it is taken, with a doubt that goes when the features do."""
    slide = (await upload(client, tissue_slide(tmp_path / "slide.tif").read_bytes(), "slide.tif")).json()
    coords = np.argwhere(np.ones((4, 10), dtype=bool))[:, ::-1] * 256

    async def attached(name: str, given: np.ndarray) -> httpx.Response:
        path = write_hdf5(tmp_path / name, tile_features(len(given)), given, patch_size_level0=256)
        return await attach(client, slide["id"], path.read_bytes())

    half = await attached("half.h5", coords[coords[:, 0] < 1280])
    swapped = await attached("swapped.h5", coords[:, ::-1])

    assert half.status_code == 202
    assert [it["code"] for it in half.json()["warnings"]] == ["features_doubted"]
    assert problem_of(swapped, 422) == "unusable_features"
    assert "are swapped" in swapped.json()["detail"]
    back = await client.post(f"/v1/slides/{slide['id']}/encode", json={"source": "pixels"})
    assert back.json()["warnings"] == []


def tissue_slide(path: Path) -> Path:
    """Tissue in the upper 1,024 of 2,560 rows, 0.5 µm/px."""
    coarse = np.random.default_rng(2).integers(90, 200, (80, 80, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (2_560, 2_560), interpolation=cv2.INTER_CUBIC)
    picture[1_024:] = 243
    tifffile.imwrite(
        path,
        picture,
        photometric="rgb",
        tile=(256, 256),
        compression="zlib",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return path
