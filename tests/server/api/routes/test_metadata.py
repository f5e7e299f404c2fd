"""What is said of slides through the whole API: at upload, changed, searched, and nowhere that it must not be."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import structlog
from api_parts import client_of, problem_of, stored_slide
from fastapi import FastAPI
from killed_writes import killed_before_write
from redis.asyncio import Redis

from encoders.types import SlideFacts
from server.api.parts import Parts
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import SlideRecord, parse_record
from server.uploads import slide_inspection
from server.uploads.slide_metadata import SlideMetadata

SLIDE = b"II*\x00".ljust(100, b"x")
SAID = {
    "accession": "A26-0047",
    "case": "S26-0815",
    "patient_ref": "p-5f2c",
    "stain": "HE",
    "body_site": "breast, left",
}
LABELS = {"labels": ["teaching", "Zürich"]}
NOTHING = dict.fromkeys(SAID) | {"labels": []}
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(autouse=True)
def everything_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader processes: these tests are about what is said beside the file."""
    monkeypatch.setattr(slide_inspection, "_facts", lambda *_: SlideFacts("aperio", 1024, 768, 0.5, 20.0))


def said_of(slide: dict[str, Any]) -> dict[str, Any]:
    return {field: slide[field] for field in NOTHING}


async def listed(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """Ids of all pages."""
    ids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await client.get("/v1/slides", params=query | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        ids += [slide["id"] for slide in answer.json()["data"]]
        cursor = answer.json()["next_cursor"]
    return ids


async def described(parts: Parts, name: str, **said: Any) -> SlideRecord:
    return await stored_slide(parts, name, metadata=SlideMetadata(**said))


def index_keys(parts: Parts) -> list[str]:
    assert parts.store.local_root is not None
    folder = parts.store.local_root / "index/described"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_form_says_what_its_slide_is_about(client: httpx.AsyncClient, parts: Parts) -> None:
    texts = SAID | {"labels": "teaching, Zürich,teaching"}

    answer = await client.post("/v1/slides", data=texts, files={"file": ("a.svs", SLIDE)})

    assert said_of(answer.json()) == SAID | LABELS
    assert (await client.get(f"/v1/slides/{answer.json()['id']}")).json() == answer.json() | {
        "status": answer.json()["status"]
    }
    for query in [*({name: text} for name, text in SAID.items()), {"label": "ZÜRICH"}, SAID, {"case": "s26-0815"}]:
        assert await listed(client, **query) == [answer.json()["id"]], query
    for query in ({"case": "S26-081"}, {"label": "HE"}, {"case": SAID["case"], "stain": "PAS"}):
        assert await listed(client, **query) == [], query


async def test_a_resumable_upload_says_the_same(client: httpx.AsyncClient) -> None:
    texts = SAID | {"labels": "teaching,Zürich", "filename": "a.svs", "filetype": "image/tiff"}
    told = ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in texts.items())
    headers = TUS | {
        "Upload-Length": str(len(SLIDE)),
        "Upload-Metadata": told,
        "Content-Type": "application/offset+octet-stream",
    }

    created = await client.post("/v1/uploads", content=SLIDE, headers=headers)

    slide = (await client.get(f"/v1/slides/{created.headers['Eyepiece-Slide-Id']}")).json()
    assert said_of(slide) == SAID | LABELS


async def test_the_files_of_a_slide_must_not_differ(client: httpx.AsyncClient) -> None:
    for name, case in (("a.dcm", "one"), ("b.dcm", "two"), ("c.dcm", "")):
        texts = {"slide": "s", "path": name, "stain": "HE"} | ({"case": case} if case else {})
        told = ",".join(f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in texts.items())
        headers = TUS | {
            "Upload-Length": str(len(SLIDE)),
            "Upload-Metadata": told,
            "Content-Type": "application/offset+octet-stream",
        }
        assert (await client.post("/v1/uploads", content=SLIDE, headers=headers)).status_code == 201

    answer = await client.post("/v1/uploads/slides", json={"slide": "s"})

    assert problem_of(answer, 422) == "invalid_request"
    assert "differ in what they say as `case`" in answer.json()["detail"]


async def test_content_that_is_known_takes_what_is_said_of_it_now(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/slides", data={"case": "one", "stain": "HE"}, files={"file": ("a.svs", SLIDE)})

    again = await client.post("/v1/slides", data={"case": "two"}, files={"file": ("a.svs", SLIDE)})

    assert again.status_code == 200
    assert said_of(again.json()) == NOTHING | {"case": "two", "stain": "HE"}
    assert await listed(client, case="one") == []
    assert await listed(client, case="two", stain="he") == [first.json()["id"]]


@pytest.mark.parametrize(
    "texts",
    [
        {"case": "x" * 129},
        {"case": " x"},
        {"stain": "H\nE"},
        {"labels": "a,,b"},
        {"labels": ",".join(map(str, range(33)))},
    ],
)
async def test_a_form_with_what_cannot_be_kept_is_refused(
    client: httpx.AsyncClient, parts: Parts, texts: dict[str, str]
) -> None:
    answer = await client.post("/v1/slides", data=texts, files={"file": ("a.svs", SLIDE)})

    assert problem_of(answer, 422) == "invalid_request"
    (field, text), *_ = texts.items()
    assert f"`{field}`" in answer.json()["detail"]
    assert text not in answer.text
    assert await listed(client) == []
    assert list(parts.store.staging_dir.iterdir()) == []


async def test_a_form_has_each_field_once_and_no_others(client: httpx.AsyncClient) -> None:
    twice = [("case", (None, b"a")), ("case", (None, b"b")), ("file", ("a.svs", SLIDE))]
    for form in (twice, [("diagnosis", (None, b"a")), ("file", ("a.svs", SLIDE))], [("stain", (None, b"x" * 20_000))]):
        assert problem_of(await client.post("/v1/slides", files=form), 422) == "invalid_request"


async def test_features_do_not_describe_their_slide(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await stored_slide(parts)

    answer = await client.put(f"/v1/slides/{slide.id}/features", data={"case": "x"}, files={"file": ("a.h5", b"x")})

    assert problem_of(answer, 422) == "invalid_request"


async def test_what_is_said_is_changed_field_by_field(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await described(parts, "a", case="one", stain="HE", labels=("x", "y"))

    changed = await client.patch(f"/v1/slides/{slide.id}", json={"case": "two", "stain": None, "accession": "A1"})
    assert said_of(changed.json()) == NOTHING | {"case": "two", "accession": "A1", "labels": ["x", "y"]}
    changed = await client.patch(f"/v1/slides/{slide.id}", json={"labels": ["z", "z"]})
    assert changed.json()["labels"] == ["z"]
    assert said_of((await client.patch(f"/v1/slides/{slide.id}", json={})).json()) == said_of(changed.json())

    for query, ids in (({"case": "one"}, []), ({"label": "y"}, []), ({"case": "two", "label": "z"}, [slide.id])):
        assert await listed(client, **query) == ids
    assert len(index_keys(parts)) == 3, "accession, case and a label"
    cleared = await client.patch(f"/v1/slides/{slide.id}", json=dict.fromkeys(NOTHING))
    assert said_of(cleared.json()) == NOTHING
    assert index_keys(parts) == []


@pytest.mark.parametrize(
    "body",
    [{"case": ""}, {"case": " x "}, {"labels": ["a,b"]}, {"labels": "a"}, {"diagnosis": "x"}, {"case": "\u202e"}],
)
async def test_a_change_that_cannot_be_kept_changes_nothing(
    client: httpx.AsyncClient, parts: Parts, body: dict[str, Any]
) -> None:
    slide = await described(parts, "a", case="one")

    assert problem_of(await client.patch(f"/v1/slides/{slide.id}", json=body), 422) == "invalid_request"

    assert said_of((await client.get(f"/v1/slides/{slide.id}")).json()) == NOTHING | {"case": "one"}


async def test_pages_go_through_a_case_newest_first(client: httpx.AsyncClient, parts: Parts) -> None:
    slides = [await described(parts, str(number), case="c", stain="HE" if number % 2 else "PAS") for number in range(7)]
    await described(parts, "other", case="d")
    newest = [slide.id for slide in sorted(slides, key=lambda it: (-it.created_at.timestamp(), it.id))]
    seen: list[str] = []
    keys_after, pages = parts.store.keys_after, 0

    async def noted(prefix: str, after: str, most: int) -> list[str]:
        seen.append(prefix)
        return await keys_after(prefix, after, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.store, "keys_after", noted)
        assert await listed(client, case="c", limit=3) == newest
        pages = len(seen)

    assert pages == 3, "a page is one look into the index"
    assert all(prefix.startswith("index/described/default/") for prefix in seen)
    assert await listed(client, case="c", stain="PAS", limit=2) == [
        it for it in newest if it in {s.id for s in slides[::2]}
    ]
    assert await listed(client, case="c", status="failed") == []
    together = await client.get("/v1/slides", params={"case": "c", "name": "1"})
    assert problem_of(together, 422) == "invalid_request"
    wrong = await client.get("/v1/slides", params={"case": "c", "cursor": "x"})
    assert problem_of(wrong, 422) == "invalid_request"


async def test_what_few_slides_share_is_found_at_once_among_many_that_share_one_field(
    client: httpx.AsyncClient, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, each newer than what is looked for: two hundred looks would come to its end and find nothing."""
    monkeypatch.setattr("server.slides.common_entries._AT_ONCE", 2)
    both = [await described(parts, f"both {number}", stain="HE", body_site="breast") for number in range(2)]
    for number in range(12):
        await described(parts, str(number), **({"stain": "HE"} if number % 3 else {"body_site": "breast"}))
    looked: list[str] = []
    look = SlideCatalogue.look

    async def noted(self: SlideCatalogue, tenant: str, slide_id: str) -> Any:
        looked.append(slide_id)
        return await look(self, tenant, slide_id)

    monkeypatch.setattr(SlideCatalogue, "look", noted)
    query = {"stain": "HE", "body_site": "breast", "limit": "1"}
    first = (await client.get("/v1/slides", params=query)).json()
    second = (await client.get("/v1/slides", params=query | {"cursor": first["next_cursor"]})).json()

    assert [it["id"] for page in (first, second) for it in page["data"]] == [both[1].id, both[0].id]
    assert set(looked) == {it.id for it in both}, "no record is read of a slide that is not meant"
    assert await listed(client, stain="HE", body_site="lung") == []
    assert await listed(client, stain="HE", body_site="breast", label="x") == []


async def test_a_page_that_has_compared_enough_can_be_continued(
    client: httpx.AsyncClient, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.slides.common_entries._AT_ONCE", 1)
    monkeypatch.setattr("server.flow.list_slides._MOST_COMPARED", 4)
    both = await described(parts, "both", stain="HE", body_site="breast")
    for number in range(12):
        await described(parts, str(number), **({"stain": "HE"} if number % 2 else {"body_site": "breast"}))

    page = (await client.get("/v1/slides", params={"stain": "HE", "body_site": "breast", "limit": 1})).json()

    assert (page["data"], page["next_cursor"] is None) == ([], False)
    assert await listed(client, stain="HE", body_site="breast", limit=1) == [both.id]


async def test_a_deleted_slide_is_found_no_more(client: httpx.AsyncClient, parts: Parts) -> None:
    slide = await described(parts, "a", **SAID, labels=("x",))
    assert len(index_keys(parts)) == 6

    await client.delete(f"/v1/slides/{slide.id}")

    assert index_keys(parts) == []


async def test_a_change_may_be_killed_before_any_write(client: httpx.AsyncClient, parts: Parts, redis: Redis) -> None:
    """Whatever the record says then, the slide is found by it and by nothing else, and entries too many go."""
    for number in range(20):
        slide = await described(parts, str(number), case="one", labels=("x",))
        with killed_before_write(parts.store, number) as was_killed:
            await client.patch(f"/v1/slides/{slide.id}", json={"case": "two", "labels": None, "stain": "HE"})
        for key in await redis.keys("*:record:*"):
            await redis.delete(key)
        case = (await client.get(f"/v1/slides/{slide.id}")).json()["case"]
        found = [await listed(client, case=it) for it in ("one", "two")]
        assert [slide.id in ids for ids in found] == [case == "one", case == "two"]
        for query in ({"label": "x"}, {"stain": "HE"}):
            await listed(client, **query)
        assert len(index_keys(parts)) == 2
        await client.delete(f"/v1/slides/{slide.id}")
        if not was_killed():
            assert number == 5, "two entries, the record, two entries"
            return
    raise AssertionError("a change has no end")


async def test_a_slide_whose_record_is_damaged_is_still_shown_in_its_case(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    slide = await described(parts, "a", case="c")
    await parts.store.put(slide.paths.record, b"{")

    answer = (await client.get("/v1/slides", params={"case": "c"})).json()["data"]

    assert [(it["id"], it["status"], it["case"]) for it in answer] == [(slide.id, "failed", None)]


async def test_what_is_said_is_in_no_path_no_log_and_no_metric(client: httpx.AsyncClient, parts: Parts) -> None:
    with structlog.testing.capture_logs() as lines:
        form = SAID | {"labels": "teaching"}
        slide = (await client.post("/v1/slides", data=form, files={"file": ("a.svs", SLIDE)})).json()
        await listed(client, **SAID)
        await client.get("/v1/cases", params={"case": SAID["case"]})
        await client.patch(f"/v1/slides/{slide['id']}", json=SAID | {"case": "S26-0816"})
    metrics = (await client.get("/metrics")).text
    assert parts.store.local_root is not None
    paths = "\n".join(str(path) for path in parts.store.local_root.rglob("*"))
    for text in (*SAID.values(), "S26-0816", "teaching"):
        if text != "HE":
            assert text not in json.dumps(lines, default=str)
            assert text not in metrics
            assert text not in paths
    assert any(line["event"] == "request" for line in lines)


async def test_another_tenant_finds_nothing(parts: Parts, make_app: Callable[..., FastAPI], app: FastAPI) -> None:
    await described(parts, "a", case="c")
    other = await stored_slide(parts, "b", tenant="other", metadata=SlideMetadata(case="c"))

    (entry,) = await parts.slides.described.entries("other", ("case", "c"), "", 9)
    assert entry.endswith(other.id)
    async with client_of(app) as client:
        assert other.id not in await listed(client, case="c")
    first, second = sorted({key.split("/")[1] for key in index_keys(parts)})
    assert first != second, "each tenant has its own key"


async def test_an_older_releases_record_says_nothing(parts: Parts, client: httpx.AsyncClient) -> None:
    slide = await stored_slide(parts)
    stored = await parts.store.get(slide.paths.record)

    assert stored is not None
    assert b"metadata" not in stored, "and is not rewritten for it"
    assert parse_record(stored, slide.paths).metadata == SlideMetadata()
