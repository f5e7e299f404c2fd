"""The page is there, shows a slide, and answers."""

from typing import Any

from browsed_page import Browsed


async def test_a_slide_is_seen_and_a_question_is_answered(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    card = await page.answer("What is the growth pattern?")
    assert await card.locator(".answer-text").inner_text() == "The growth pattern is glandular."
