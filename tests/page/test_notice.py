"""The notice of the model is in view before, during and after a question, on every size of screen and on paper."""

from typing import Any

import pytest
from browsed_page import HEIGHT_PX, WIDTH_PX, Browsed

NOTICE = "Research use only"


async def in_view(page: Browsed) -> None:
    """The whole box of the notice lies within the window, and its words are the model's."""
    size = await page.window.evaluate("({width: innerWidth, height: innerHeight})")
    box = await page.window.locator("#notice").bounding_box()
    assert box["x"] >= 0
    assert box["y"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert box["y"] + box["height"] <= size["height"]
    assert NOTICE in await page.window.locator("#notice-text").inner_text()


# 400 % of 1366×768 leaves a quarter of its pixels each way; 320 is the width that WCAG 1.4.10 asks for.
@pytest.mark.parametrize("size", [(WIDTH_PX, HEIGHT_PX), (WIDTH_PX // 4, HEIGHT_PX // 4), (320, 640)])
async def test_it_is_in_view_before_and_while_an_answer_streams(
    page: Browsed, slide: dict[str, Any], size: tuple[int, int]
) -> None:
    await page.window.set_viewport_size({"width": size[0], "height": size[1]})
    await page.open(slide["id"])
    await in_view(page)

    await page.show("answers")
    card = await page.ask("Which pattern? Say it slowly.")
    await card.and_(page.window.locator('[data-state="writing"]')).wait_for()
    await in_view(page)
    await page.window.evaluate("scrollTo(0, document.body.scrollHeight)")
    await in_view(page)
    await page.window.locator("#stop").click()
    assert await page.window.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_it_is_printed_with_the_answers(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    await page.answer("What is the growth pattern?")

    await page.window.emulate_media(media="print")

    await in_view(page)
    assert await page.window.locator(".card").first.is_visible()
    assert await page.window.locator("#notice").evaluate("it => getComputedStyle(it).position") == "fixed"
    assert not await page.window.locator("#ask").is_visible()
