"""What a model was given of a slide, through the whole API; the levels are drawn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api_parts import client_of, problem_of, stored_slide
from drawn_levels import drawn_levels
from fastapi import FastAPI
from shapely.geometry import Polygon, shape

from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.levels import Levels
from encoders.hierarchical.levels_file import write_levels
from encoders.hierarchical.levels_reader import LevelsReader
from model_store.manifest import Manifest
from server.api.dependencies import show_levels
from server.api.downloads import in_small_pieces
from server.api.parts import Parts
from server.asking.served_models import ServedModels
from server.errors import NoLevels
from server.identity.api_keys import create_key
from server.slides.slide_record import SlideError, SlideRecord

JSON, GEOJSON = "application/json", "application/geo+json"


@pytest.fixture(autouse=True)
def _demo_has_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Manifest, "reads", property(lambda it: "tiles" if it.name == "tiles" else "levels"))


async def slide_with(parts: Parts, tmp_path: Path, levels: Levels | bytes, **facts: Any) -> SlideRecord:
    record = await stored_slide(parts, ready=True, **facts)
    content = levels
    if isinstance(levels, Levels):
        write_levels(tmp_path / "levels.h5", replace(levels, slide_id=record.id, encoder_id=record.encoder_id))
        content = (tmp_path / "levels.h5").read_bytes()
    assert isinstance(content, bytes)
    await parts.store.put(record.paths.features(record.encoder_id), content)
    return record


@pytest.fixture
def levels() -> Levels:
    return drawn_levels(region_grid=(2, 1), chosen=3, cells_per_patch=6)


@pytest.fixture
async def path(parts: Parts, tmp_path: Path, levels: Levels) -> str:
    return f"/v1/slides/{(await slide_with(parts, tmp_path, levels)).id}/levels"


async def test_all_regions_have_their_patches_by_rank_and_numbers_of_cells(
    client: httpx.AsyncClient, path: str, levels: Levels
) -> None:
    answer = await client.get(path)

    shown = answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert (shown["model"], shown["region_count"], shown["width"], shown["region_px"]) == ("demo", 2, 3072, 1024)
    assert "does not say why" in shown["meaning"]
    assert shown["cell_counts"] == {"total": 24, **dict.fromkeys(CELL_KINDS, 4)}
    corners = levels.patch_coords()
    for region, it in enumerate(shown["regions"]):
        x, y = levels.region_coords[region].tolist()
        assert (it["index"], it["box"]) == (region, {"x": x, "y": y, "width": 1024, "height": 1024})
        assert [patch["rank"] for patch in it["patches"]] == [1, 2, 3]
        assert [[patch["box"]["x"], patch["box"]["y"]] for patch in it["patches"]] == corners[region].tolist()
        assert [patch["cell_counts"]["total"] for patch in it["patches"]] == [6, 6, 0]
        assert [patch["cells"] for patch in it["patches"]] == [None] * 3


async def test_one_region_has_its_cells_too(client: httpx.AsyncClient, path: str, levels: Levels) -> None:
    shown = (await client.get(path, params={"region": 1})).json()

    assert levels.cells is not None
    (region,) = shown["regions"]
    assert (region["index"], shown["region_count"], shown["cell_counts"]["total"]) == (1, 2, 24)
    assert [len(patch["cells"]) for patch in region["patches"]] == [6, 6, 0]
    cell, of_file = region["patches"][0]["cells"][1], 13
    outline = levels.cells.outline[slice(*levels.cells.outline_start[of_file : of_file + 2])] + 0.5
    assert Polygon(cell["contour"]).equals(Polygon(outline))
    assert cell["contour"][0] == cell["contour"][-1]
    assert cell["centroid"] == (levels.cells.centroid[of_file] + 0.5).tolist()
    assert (cell["kind"], cell["mended"]) == ("neoplastic", False)


async def test_geojson_is_what_qupath_reads(client: httpx.AsyncClient, path: str, levels: Levels) -> None:
    answer = await client.get(path, params={"format": "geojson"})

    collection = answer.json()
    assert answer.headers["Content-Type"] == GEOJSON
    assert answer.headers["Content-Disposition"].endswith('.geojson"')
    properties = [it["properties"] for it in collection["features"]]
    assert [it["objectType"] for it in properties].count("annotation") == 2 + 6
    assert [it["objectType"] for it in properties].count("detection") == 24
    kinds = [it["classification"]["name"] for it in properties if it["objectType"] == "detection"]
    assert sorted(set(kinds)) == ["Connective", "Dead", "Epithelial", "Inflammatory", "Neoplastic", "Unclassified"]
    region, patch = properties[0], properties[1]
    assert (region["name"], region["classification"]["name"], region["isLocked"]) == ("region 0", "Given region", True)
    assert (patch["name"], patch["measurements"]["Rank"], patch["measurements"]["Cells"]) == ("region 0, rank 1", 1, 6)
    assert patch["measurements"]["Cells: dead"] == 1
    shapes = [shape(it["geometry"]) for it in collection["features"]]
    assert all(it.is_valid and it.exterior.is_ccw and it.area > 0 for it in shapes)
    slide = Polygon([(0, 0), (3072, 0), (3072, 2048), (0, 2048)])
    assert all(slide.contains(it) for it in shapes)
    # Each cell lies in one of its region's patches, which lie in the region.
    assert all(shapes[0].covers(it) for it in shapes[1:4])
    cells = [it for it, said in zip(shapes, properties, strict=True) if said["objectType"] == "detection"]
    assert all(any(patch.contains(cell) for patch in [*shapes[1:4], *shapes[17:20]]) for cell in cells)


async def test_geojson_of_one_region(client: httpx.AsyncClient, path: str) -> None:
    names = [
        it["properties"].get("name")
        for it in (await client.get(path, params={"format": "geojson", "region": 1})).json()["features"]
    ]

    assert names[:4] == ["region 1", "region 1, rank 1", "region 1, rank 2", "region 1, rank 3"]
    assert names[4:] == [None] * 12


async def test_the_form_is_chosen_by_parameter_or_accept(client: httpx.AsyncClient, path: str) -> None:
    for accept, query, got in (
        (GEOJSON, "", GEOJSON),
        (f"{GEOJSON}, application/json;q=0.9", "", GEOJSON),
        (f"application/json, {GEOJSON};q=0.9", "", JSON),
        (f"{GEOJSON};q=0", "", JSON),
        (f"{GEOJSON};q=nan", "", JSON),
        ("*/*", "", JSON),
        ("text/html", "", JSON),
        (GEOJSON, "?format=json", JSON),
        (JSON, "?format=geojson", GEOJSON),
    ):
        answer = await client.head(path + query, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["Content-Type"], answer.headers["Vary"]) == (200, got, "Accept")
    assert (await client.get(path, headers={"Accept": GEOJSON})).headers["Content-Type"] == GEOJSON


async def test_a_version_that_the_client_has_is_not_sent_again(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path, path: str
) -> None:
    tags = {}
    for query in ("", "?region=0", "?region=1", "?format=geojson", "?format=geojson&region=0"):
        tags[query] = (await client.get(path + query)).headers["ETag"]
        again = await client.get(path + query, headers={"If-None-Match": tags[query]})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tags[query])
    assert len(set(tags.values())) == 5
    record = await parts.slides.require("default", path.split("/")[3])
    another = drawn_levels(seed=2, slide_id=record.id, encoder_id=record.encoder_id)
    write_levels(tmp_path / "another.h5", another)
    await parts.store.put(record.paths.features(record.encoder_id), (tmp_path / "another.h5").read_bytes())
    changed = await client.get(path, headers={"If-None-Match": tags[""]})
    assert changed.status_code == 200


async def test_values_that_mean_nothing_are_refused(client: httpx.AsyncClient, path: str) -> None:
    for query in (
        "region=-1", "region=1.5", "region=nan", "region=", "region=99999999999999999999", "region=0x1", "region=1e2",
        "format=xml", "format=", "model=" + "m" * 65, "model=none", "regions=1", "region=%00", "region=" + "9" * 5000,
        "region=0&region=1", "format=json&format=json",
    ):  # fmt: skip
        assert problem_of(await client.get(f"{path}?{query}"), 422) == "invalid_request", query


async def test_a_region_that_the_slide_has_not(client: httpx.AsyncClient, path: str) -> None:
    for region in (2, 2**31 - 1):
        answer = await client.get(path, params={"region": region})
        assert problem_of(answer, 404) == "not_found"
    assert "it has 2, from 0 to 1" in answer.json()["detail"]


async def test_cells_of_which_nobody_knows_are_not_none(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path, levels: Levels
) -> None:
    unknown = replace(levels, cells=None, level0_width=None, level0_height=None)
    path = f"/v1/slides/{(await slide_with(parts, tmp_path, unknown)).id}/levels"

    shown = (await client.get(path, params={"region": 0})).json()
    features = (await client.get(path, params={"format": "geojson"})).json()["features"]

    assert (shown["cell_counts"], shown["width"]) == (None, None)
    assert [(it["cell_counts"], it["cells"]) for it in shown["regions"][0]["patches"]] == [(None, None)] * 3
    assert features[1]["properties"]["measurements"] == {"Region": 0, "Rank": 1}


async def test_a_slide_without_a_single_cell(client: httpx.AsyncClient, parts: Parts, tmp_path: Path) -> None:
    none = drawn_levels(region_grid=(1, 1), cells_per_patch=0)
    path = f"/v1/slides/{(await slide_with(parts, tmp_path, none)).id}/levels"

    shown = (await client.get(path, params={"region": 0})).json()

    assert shown["cell_counts"]["total"] == 0
    assert [it["cells"] for it in shown["regions"][0]["patches"]] == [[]] * 5
    assert len((await client.get(path, params={"format": "geojson"})).json()["features"]) == 6


async def test_a_cell_one_pixel_wide_becomes_a_box_and_says_so(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    one = drawn_levels(region_grid=(1, 1), chosen=2, cells_per_patch=1)
    assert one.cells is not None
    x, y = one.patch_coords()[0, 0].tolist()
    line = np.array([[x, y], [x, y + 4]], np.int32)
    cells = replace(one.cells, outline=line, outline_start=np.array([0, 2]), centroid=line[:1].astype(np.float32))
    path = f"/v1/slides/{(await slide_with(parts, tmp_path, replace(one, cells=cells))).id}/levels"

    (cell,) = (await client.get(path, params={"region": 0})).json()["regions"][0]["patches"][0]["cells"]
    feature = (await client.get(path, params={"format": "geojson"})).json()["features"][-1]

    assert (cell["mended"], feature["properties"]["mended"]) == (True, True)
    assert cell["contour"] == [[x, y], [x + 1, y], [x + 1, y + 5], [x, y + 5], [x, y]]
    assert feature["geometry"]["coordinates"] == [cell["contour"]]


async def test_while_it_is_encoded_a_client_is_told_when_to_come_again(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts)

    answer = await client.get(f"/v1/slides/{record.id}/levels")

    assert problem_of(answer, 409) == "slide_not_ready"
    assert answer.headers["Retry-After"] == "5"


async def test_a_slide_that_failed_says_why(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts, error=SlideError(code="no_tissue", detail="None."))

    answer = await client.get(f"/v1/slides/{record.id}/levels")

    assert problem_of(answer, 409) == "slide_failed"
    assert "no_tissue" in answer.json()["detail"]


async def test_an_embedding_that_was_given_has_no_levels(client: httpx.AsyncClient, parts: Parts) -> None:
    record = await stored_slide(parts, ready=True)
    await parts.store.delete(record.paths.features(record.encoder_id))

    assert problem_of(await client.get(f"/v1/slides/{record.id}/levels"), 404) == "not_found"


async def test_a_model_of_tiles_says_which_ones_have_levels(
    parts: Parts, client: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_levels = parts.models.default
    of_tiles = replace(of_levels, manifest=of_levels.manifest.model_copy(update={"name": "tiles"}))
    record = await parts.slides.require("default", path.split("/")[3])
    for models, advice in (
        ([of_tiles, of_levels], "ask for demo."),
        ([of_tiles], "no model of this server has levels."),
    ):
        with pytest.raises(NoLevels) as raised:
            replace(show_levels(parts), models=ServedModels(models)).require_levels(record)
        assert raised.value.detail == f"The model tiles is given tiles, not levels; {advice}"

    monkeypatch.setattr(Manifest, "reads", "tiles")
    assert problem_of(await client.get(path), 422) == "no_levels"


async def test_the_levels_of_another_tenant_do_not_exist(
    make_app: Callable[..., FastAPI], parts: Parts, tmp_path: Path, levels: Levels
) -> None:
    record = await slide_with(parts, tmp_path, levels, tenant="owner")
    keys = {name: await create_key(parts.store, name, None) for name in ("owner", "other")}
    app = make_app(require_key=True)
    for name, status in (("owner", 200), ("other", 404)):
        async with client_of(app, keys[name]) as client:
            for query in ("", "?format=geojson", "?region=0", "?region=7"):
                answer = await client.get(f"/v1/slides/{record.id}/levels{query}")
                assert answer.status_code == (404 if query == "?region=7" else status)


async def test_a_damaged_file_is_an_error_and_never_half_an_answer(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    record = await slide_with(parts, tmp_path, b"")
    for content in (b"", b"features", b"\x89HDF\r\n\x1a\n" + bytes(600)):
        await parts.store.put(record.paths.features(record.encoder_id), content)
        assert problem_of(await client.get(f"/v1/slides/{record.id}/levels"), 500) == "internal_error"
    for others in ({"slide_id": "0" * 64}, {"encoder_id": "0" * 16}):
        ids = {"slide_id": record.id, "encoder_id": record.encoder_id}
        write_levels(tmp_path / "other.h5", replace(drawn_levels(), **ids | others))
        await parts.store.put(record.paths.features(record.encoder_id), (tmp_path / "other.h5").read_bytes())
        answer = await client.get(f"/v1/slides/{record.id}/levels")
        assert problem_of(answer, 500) == "internal_error"
    assert "another slide's" in answer.json()["detail"]


async def test_the_file_is_closed_whether_the_answer_was_read_or_not(
    client: httpx.AsyncClient, parts: Parts, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[LevelsReader] = []
    enter = LevelsReader.__enter__
    monkeypatch.setattr(LevelsReader, "__enter__", lambda self: (opened.append(self), enter(self))[1])

    await client.get(path)
    await client.get(path, params={"region": 9})
    async with client.stream("GET", path, params={"format": "geojson"}) as answer:
        assert answer.status_code == 200

    assert len(opened) == 3
    assert not any(reader._file for reader in opened)
    assert parts.download_slots._held == {}


async def test_as_many_as_want_them_get_them_in_turn(client: httpx.AsyncClient, parts: Parts, path: str) -> None:
    asked = [client.get(path, params={"format": form}) for form in ("json", "geojson") * 3]

    answers = await asyncio.gather(*asked)

    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.content for answer in answers}) == 2
    assert not parts.levels_turns.locked()


async def test_no_piece_is_larger_than_what_may_wait_for_a_slow_reader() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a" * 100
        yield b"b" * 100_000

    small = [piece async for piece in in_small_pieces(pieces())]

    assert [len(piece) for piece in small] == [100, 65_536, 34_464]
    assert b"".join(small) == b"a" * 100 + b"b" * 100_000
