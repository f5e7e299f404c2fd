"""What is said of a slide: read in the row above it, searched by, and changed by whoever may."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_findings import grave_findings
from browsed_page import Browsed
from page_keys import new_key
from running_server import RunningServer

SAID = {"case": "S26-0815", "stain": "HE", "labels": ["teaching", "second read"]}
NOTHING = dict.fromkeys(("accession", "case", "patient_ref", "stain", "body_site", "labels"))


@pytest.fixture
def said(server: RunningServer, slide: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The slide, of which something is said until the test is over."""
    with server.client() as client:
        yield client.patch(f"/v1/slides/{slide['id']}", json=SAID).json()
        client.patch(f"/v1/slides/{slide['id']}", json=NOTHING)


async def test_the_slides_of_a_case_are_found_from_the_row_and_by_typing(
    page: Browsed, said: dict[str, Any], other_slide: dict[str, Any]
) -> None:
    window = page.window
    await page.open(said["id"])
    row = window.locator("#slide-about")
    assert await row.locator("dt").all_inner_texts() == ["Case", "Stain", "Labels"]
    assert await row.locator("dd").all_inner_texts() == ["S26-0815", "HE", "teaching", "second read"]
    listed = window.locator("#slide-list li")
    assert await listed.locator(f'[data-slide="{other_slide["id"]}"]').or_(listed).count() > 1

    await row.get_by_role("button", name="S26-0815").click()

    await page.until_true("document.querySelectorAll('#slide-list li').length === 1")
    assert await listed.get_attribute("data-slide") == said["id"]
    assert "S26-0815, HE" in await listed.inner_text()
    await window.locator("#slide-search").fill("s26-0816")
    await page.until_true("document.querySelectorAll('#slide-list li').length === 0")
    await window.locator("#search-by").select_option("label")
    await window.locator("#slide-search").fill("SECOND READ")
    await page.until_true("document.querySelectorAll('#slide-list li').length === 1")


async def test_what_is_said_is_changed_and_a_refusal_loses_nothing(
    page: Browsed, said: dict[str, Any], server: RunningServer
) -> None:
    window = page.window
    await page.open(said["id"])
    await window.locator("#edit-about").click()
    dialog = window.locator("#about")
    assert await grave_findings(window) == []
    assert await dialog.get_by_label("Case").input_value() == "S26-0815"
    await dialog.get_by_label("Body site").fill("breast,\tleft")  # a tab is no character of a line

    await dialog.get_by_role("button", name="Keep").click()

    await dialog.get_by_role("alert").filter(has_text=" ").wait_for()
    assert await dialog.get_by_label("Body site").input_value() == "breast,\tleft"
    await dialog.get_by_label("Body site").fill("breast, left")
    await dialog.get_by_label("Stain").fill("")
    await dialog.get_by_label("Labels").fill("teaching, teaching, quality")
    await dialog.get_by_label("Labels").press("Enter")
    await dialog.wait_for(state="hidden")
    row = window.locator("#slide-about dd")
    assert await row.all_inner_texts() == ["S26-0815", "breast, left", "teaching", "quality"]
    with server.client() as client:
        kept = client.get(f"/v1/slides/{said['id']}").json()
    assert (kept["stain"], kept["body_site"], kept["labels"]) == (None, "breast, left", ["teaching", "quality"])


async def test_who_may_only_read_reads_and_is_offered_nothing_else(
    page: Browsed, said: dict[str, Any], server: RunningServer
) -> None:
    window = page.window
    await page.open(said["id"])
    await window.locator("#edit-about").wait_for()
    await window.locator("#reports-opener").wait_for()

    key = new_key(server, "--scope", "slides:read", "--scope", "ask")
    await window.evaluate("async (key) => (await import('/page/scripts/api.js')).api.signIn(key)", key)

    await window.locator("#edit-about").wait_for(state="detached")
    await window.locator("#reports-opener").wait_for(state="hidden")
    assert "S26-0815" in await window.locator("#slide-about").inner_text()


async def test_at_320_px_the_row_is_whole_and_stands_with_the_slide_alone(page: Browsed, said: dict[str, Any]) -> None:
    window = page.window
    await page.open(said["id"])
    await window.set_viewport_size({"width": 320, "height": 640})
    for view, is_there in (("viewer", True), ("slides", False), ("answers", False)):
        await window.locator(f"#view-{view}").click()
        assert await window.locator("#slide-about").is_visible() is is_there
        assert await window.evaluate("document.documentElement.scrollWidth") <= 320
    await window.locator("#view-viewer").click()
    await window.locator("#edit-about").click()
    assert await window.evaluate("document.documentElement.scrollWidth") <= 320
