"""The evidence of an answer on the page, as `POST …/evidence` tells it; the numbers here are written down."""

from typing import Any

from browsed_page import Browsed


async def test_cells_that_stand_out_are_shown_strongest_first_and_not_by_colour_alone(
    page: Browsed, slide: dict[str, Any], evidence_of: Any
) -> None:
    window = page.window
    await evidence_of(page)
    await page.open(slide["id"])
    await page.sees_the_slide()
    card = await page.answer("Where is the necrosis?")
    await card.locator(".evidence-button").click()

    rows = card.locator(".cells li")
    await rows.first.wait_for()
    assert [await row.get_attribute("data-cell") for row in await rows.all()] == ["r1c1", "r0c1"]
    assert "less supported by 5.20 nats (very strong)" in await rows.first.inner_text()
    assert "Not a segmentation." in await card.locator(".caption").inner_text()
    drawn = window.locator('[data-layer="evidence"] g.cell.strong')
    assert await drawn.count() == 2
    assert [await it.get_attribute("data-rank") for it in await drawn.all()] == ["2", "1"]
    assert await drawn.nth(1).locator("text").text_content() == "1"
    fills = {await it.locator(".hatch").get_attribute("fill") for it in await drawn.all()}
    assert fills == {"url(#hatch-1)", "url(#hatch-3)"}

    await window.locator("#canvas").focus()
    whole = await page.view_at_rest()
    await window.keyboard.press("n")
    view = await page.view_at_rest(other_than=whole)
    cell = {"x": slide["width"] / 2, "y": slide["height"] / 2}
    assert view["x"] <= cell["x"]
    assert view["x"] + view["width"] > slide["width"]
    assert await rows.first.get_attribute("aria-current") == "true"
    await window.keyboard.press("p")
    assert await rows.nth(1).get_attribute("aria-current") == "true"
    before = float(await window.locator('[data-layer="evidence"]').get_attribute("opacity") or 0)
    await window.keyboard.press("[")
    assert float(await window.locator('[data-layer="evidence"]').get_attribute("opacity") or 0) < before


async def test_where_nothing_stands_out_nothing_is_coloured_and_a_refusal_can_be_tried_again(
    page: Browsed, slide: dict[str, Any], evidence_of: Any
) -> None:
    window = page.window
    await evidence_of(page, refusal="Nobody could measure it; ask again.")
    await page.open(slide["id"])
    await page.sees_the_slide()
    card = await page.answer("Where is the necrosis?")
    await window.locator("#canvas").focus()
    await window.keyboard.press("e")
    await card.locator(".evidence .mark").wait_for()
    assert await card.locator(".evidence .mark").inner_text() == "Nobody could measure it; ask again."

    await evidence_of(page, stands_out=False)
    await card.locator(".evidence button").click()
    await card.locator(".finding.none").wait_for()
    assert await card.locator(".finding").inner_text() == "No part stands out"
    assert "from anywhere" in await card.locator(".control").inner_text()
    assert await window.locator('[data-layer="evidence"] g.cell.strong').count() == 0
    assert await window.locator('[data-layer="evidence"] rect.cell').count() == 4
