"""Slides that the public code crashes on or says nothing about, sent to a server with a model of levels.

Upload, job, reader and networks are real (`demo-hierarchical`, drawn weights); cells are dark pixels, so that how many
there are is known. The same slides are given to the stage alone in tests/encoders/slide_stages.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api_parts import encode_job
from fakes import FakeEncode
from hierarchical_toys import DarkIsNucleus, spec_of, write_flat_slide
from numpy.typing import NDArray

from encoders.caller import Caller
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.tiling.isolation.reader_process import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile
from model_store.installed import InstalledModel, open_model
from model_store.packaged_models import PACKAGED
from server.api.parts import Parts
from server.encoding.encode_worker import WorkerQueue

REGION_PX = 512
GLASS, TISSUE, INK = 244, (150, 130, 190), (90, 40, 80)


@pytest.fixture(scope="module")
def demo_model() -> InstalledModel:
    return open_model(PACKAGED, "demo-hierarchical")


@pytest.fixture(scope="module")
def encoders(demo_model: InstalledModel) -> Iterator[Encoders]:
    with load_encoders(demo_model, "cpu") as loaded:
        loaded.stage.encoder._cellvit = DarkIsNucleus(spec_of(demo_model).cellvit.embed_dim)
        yield loaded


def glass(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GLASS, np.uint8)


async def sent(
    client: httpx.AsyncClient, parts: Parts, encoders: Encoders, folder: Path, pixels: NDArray[np.uint8]
) -> dict[str, Any]:
    """The slide as the API shows it once a worker has had it; it has one level."""
    write_flat_slide(folder / "slide.tiff", pixels)
    answer = await client.post("/v1/slides", files={"file": ("slide.tiff", (folder / "slide.tiff").read_bytes())})
    assert answer.status_code == 202, answer.text

    def encode(slide: SlideFile, mpp: float | None, features_path: Path, caller: Caller) -> SlideEmbedding:
        limits = ReaderLimits()
        return encode_slide(
            slide, encoders, mpp_override=mpp, limits=limits, features_path=features_path, caller=caller
        )

    message = await WorkerQueue(parts.jobs).dequeue()
    assert message is not None
    await replace(encode_job(parts, FakeEncode("unused")), encodes={"": encode}).run(
        {"job": message}, **(message.kwargs or {})
    )
    slide: dict[str, Any] = (await client.get(f"/v1/slides/{answer.json()['id']}")).json()
    return slide


async def levels_of(client: httpx.AsyncClient, slide: dict[str, Any], query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/v1/slides/{slide['id']}/levels{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_slide_of_one_level_and_a_single_region_is_ready(
    client: httpx.AsyncClient, parts: Parts, encoders: Encoders, tmp_path: Path
) -> None:
    pixels = glass(1100, 1000)
    pixels[200:600, 100:500] = TISSUE
    for y, x in ((260, 160), (260, 400), (500, 160), (500, 400)):  # one in each picture of the region
        pixels[y : y + 40, x : x + 40] = INK

    slide = await sent(client, parts, encoders, tmp_path, pixels)
    levels = await levels_of(client, slide, "?region=0")

    assert (slide["status"], slide["tile_count"], slide["error"]) == ("ready", 1, None)
    (region,) = levels["regions"]
    assert len(region["patches"]) == 2, "as many as the model keeps"
    assert [len(patch["cells"]) for patch in region["patches"]] == [1, 1]


async def test_without_tissue_it_fails_and_says_so(
    client: httpx.AsyncClient, parts: Parts, encoders: Encoders, tmp_path: Path
) -> None:
    slide = await sent(client, parts, encoders, tmp_path, glass(1100, 1000))

    assert (slide["status"], slide["error"]["code"]) == ("failed", "no_tissue")


async def test_regions_across_the_edge_are_left_out_and_cells_may_be_none(
    client: httpx.AsyncClient, parts: Parts, encoders: Encoders, tmp_path: Path
) -> None:
    pixels = glass(1400, 1300)
    pixels[200:, 100:] = TISSUE

    slide = await sent(client, parts, encoders, tmp_path, pixels)
    levels = await levels_of(client, slide)

    # Boxes of 512 px from the tissue's corner: the third ones cross the edge.
    assert (slide["status"], slide["tile_count"]) == ("ready", 4)
    assert len(levels["regions"]) == 4
    for region in levels["regions"]:
        assert region["box"]["x"] + REGION_PX <= 1400
        assert region["box"]["y"] + REGION_PX <= 1300
        assert sum(region["cell_counts"].values()) == 0


async def test_tissue_only_where_no_region_fits_is_no_tissue(
    client: httpx.AsyncClient, parts: Parts, encoders: Encoders, tmp_path: Path
) -> None:
    pixels = glass(1400, 1300)
    pixels[900:, 1000:] = TISSUE

    slide = await sent(client, parts, encoders, tmp_path, pixels)

    assert (slide["status"], slide["error"]["code"]) == ("failed", "no_tissue")


@pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="563 regions: `make hierarchy`")
async def test_the_largest_published_slide(
    client: httpx.AsyncClient, parts: Parts, encoders: Encoders, tmp_path: Path
) -> None:
    pixels = glass(512 * 25 + 100, 512 * 24 + 100)
    pixels[40 : 40 + 512 * 23, 40 : 40 + 512 * 24] = TISSUE
    # Tissue is found on pixels of 64 px, so the last row ends in the middle of a region, far from the points asked for.
    pixels[40 + 512 * 23 : 40 + 512 * 24, 40 : 512 * 10 + 256] = TISSUE

    slide = await sent(client, parts, encoders, tmp_path, pixels)

    assert (slide["status"], slide["tile_count"]) == ("ready", 563)
    assert len((await levels_of(client, slide))["regions"]) == 563
