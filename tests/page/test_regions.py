"""Regions on the page: drawn by mouse and by keys, told when too small, asked about, and carried by their answers."""

import re
from typing import Any

from browsed_page import Browsed


async def test_a_rectangle_is_dragged_asked_about_and_carried_by_the_answer(
    page: Browsed, slide: dict[str, Any]
) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.sees_the_slide()

    await window.locator('#tools [data-command="rectangle"]').click()
    await page.drag(0.1, 0.1, 0.9, 0.9)

    label = await page.chosen_region()
    assert await window.locator(".region.chosen text").text_content() == label
    card = await page.answer("Is there necrosis?")
    facts = await card.locator(".card-facts").inner_text()
    assert re.search(rf"{label} \(\d+ tiles, [\d.]+ mm²\)", facts)
    assert await card.locator('.doubt[data-code="region_not_evaluated"]').count() == 1
    # Nobody knows whether a place is meant in the region or in the slide.
    assert await card.locator("button.place").count() == 0

    await window.locator('#scope input[value="slide"]').check()
    card = await page.answer("Is there necrosis?")
    assert "whole slide" in await card.locator(".card-facts").inner_text()
    assert await card.locator('.doubt[data-code="turns_of_another_scope"]').count() == 1


async def test_too_small_a_region_says_how_much_more_it_needs_and_a_polygon_is_drawn_freehand(
    page: Browsed, slide: dict[str, Any]
) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.sees_the_slide()

    await window.locator("#canvas").focus()
    await window.keyboard.press("r")
    await page.drag(0.45, 0.45, 0.55, 0.55)
    said = window.locator("#tool-words.problem")
    await said.wait_for()
    assert re.search(r"of the 16 tiles .* more \([\d.]+ mm²\)", await said.inner_text())
    assert await window.locator("#scope input:checked").get_attribute("value") == "slide"

    await window.keyboard.press("f")
    corners = [(0.2, 0.1), (0.8, 0.15), (0.9, 0.85), (0.5, 0.95), (0.1, 0.8)]
    await page.drag_along(corners)
    await page.chosen_region()
    points = (await window.locator(".region.chosen polygon.line").get_attribute("points") or "").split()
    assert len(corners) <= len(points) <= 40


async def test_the_way_from_a_slide_to_its_evidence_needs_no_mouse(
    page: Browsed, slide: dict[str, Any], evidence_of: Any
) -> None:
    window = page.window
    await evidence_of(page)
    await page.open()

    await page.tab_to(f'#slide-list [data-slide="{slide["id"]}"] button')
    await window.keyboard.press("Enter")
    await page.sees_the_slide()
    await page.tab_to("#canvas")
    await window.keyboard.press("Enter")
    first = await page.drawn_box()
    assert slide["mpp"] * first["width"] >= 256
    await window.keyboard.press("ArrowLeft")
    assert (await page.drawn_box())["x"] < first["x"]
    await window.keyboard.press("Shift+ArrowDown")
    sized = await page.drawn_box()
    assert sized["height"] > first["height"]
    assert sized["width"] == first["width"]
    await window.keyboard.press("Enter")
    await page.chosen_region()
    await window.keyboard.press("/")
    await window.keyboard.type("Is there necrosis?")
    before = await window.locator('.card[data-state="done"]').count()
    await window.keyboard.press("Enter")
    await window.locator('.card[data-state="done"]').nth(before).wait_for()
    await page.tab_to("#canvas")
    await window.keyboard.press("e")
    await window.locator(".evidence .cells").wait_for()
    await window.keyboard.press("n")
    assert await window.locator('.cells li[aria-current="true"]').count() == 1
    await window.keyboard.press("Shift+R")
    assert await window.locator("#scope input:checked").get_attribute("value") == "slide"
