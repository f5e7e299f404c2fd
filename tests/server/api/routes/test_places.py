"""Where a slide's tiles lie, as the page shows them: those of the features, without the features."""

import io
from dataclasses import replace
from pathlib import Path

import h5py
import httpx
import pytest
from api_parts import problem_of, stored_slide
from drawn_levels import drawn_levels
from drawn_regions import COLUMNS, ROWS, SIDE_PX, WHOLE, slide_with_tiles

from encoders.hierarchical.levels_file import write_levels
from model_store.manifest import Manifest
from server.api.parts import Parts


async def test_the_places_are_those_of_the_features_in_their_order(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await slide_with_tiles(parts)

    answer = await client.get(f"/v1/slides/{slide.id}/places")

    shown = answer.json()
    with h5py.File(io.BytesIO((await client.get(f"/v1/slides/{slide.id}/features")).content)) as features:
        assert shown.pop("coords") == features["coords"][()].tolist()
    assert shown == {
        "object": "slide.places",
        "slide_id": slide.id,
        "model": "demo",
        "encoder_id": slide.encoder_id,
        "side_px": SIDE_PX,
        "least": 16,
        "count": COLUMNS * ROWS,
    }


async def test_whoever_has_them_already_is_told_so(client: httpx.AsyncClient, parts: Parts) -> None:
    path = f"/v1/slides/{(await slide_with_tiles(parts)).id}/places"
    first = await client.get(path)

    again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")


async def test_of_a_model_of_levels_they_are_its_regions(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifest, "reads", property(lambda it: "levels"))
    slide = await stored_slide(parts, ready=True)
    levels = drawn_levels(region_grid=(2, 1), chosen=3, cells_per_patch=6)
    write_levels(tmp_path / "levels.h5", replace(levels, slide_id=slide.id, encoder_id=slide.encoder_id))
    await parts.store.put(slide.paths.features(slide.encoder_id), (tmp_path / "levels.h5").read_bytes())

    shown = (await client.get(f"/v1/slides/{slide.id}/places")).json()

    assert (shown["side_px"], shown["least"], shown["count"]) == (1024, 1, 2)
    assert shown["coords"] == levels.region_coords.tolist()


async def test_a_slide_that_is_not_encoded_has_none_yet(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await stored_slide(parts)

    answer = await client.get(f"/v1/slides/{slide.id}/places")

    assert problem_of(answer, 404) == "not_found"
    assert "follow its events" in answer.json()["detail"]


async def test_features_without_the_size_of_a_tile_have_no_places(client: httpx.AsyncClient, parts: Parts) -> None:
    said = {name: value for name, value in WHOLE.items() if name != "tile_px_level0"}
    slide = await slide_with_tiles(parts, said=said)

    assert problem_of(await client.get(f"/v1/slides/{slide.id}/places"), 409) == "regions_unavailable"
