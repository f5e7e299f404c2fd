"""The draft of a report: sentences that lead to their answers, marked until somebody edits them, with the notice; and
the page on paper."""

import re
from pathlib import Path
from typing import Any

from browsed_page import Browsed


async def test_a_draft_says_whose_each_sentence_is_and_paper_has_notice_slide_and_answers(
    page: Browsed, slide: dict[str, Any]
) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.answer("Where is the necrosis?")
    await page.answer("What is the growth pattern?")
    await window.locator("#report-opener").click()

    rows = window.locator(".sentences li")
    count = await rows.count()
    assert await window.locator(".sentences li.unedited").count() == count >= 2
    await rows.last.locator("textarea").fill("The pattern is glandular throughout.")
    assert await window.locator(".sentences li.unedited").count() == count - 1
    async with window.expect_download() as downloading:
        await window.locator("#save-report").click()
    text = Path(await (await downloading.value).path()).read_text()
    assert await window.locator("#notice-text").inner_text() in text
    assert re.search(r"Yes, there is necrosis in the lower right quadrant\. \[\d+\] \[unedited\]", text)
    [number] = re.findall(r"The pattern is glandular throughout\. \[(\d+)\] \[edited\]", text)
    assert f"[{number}] What is the growth pattern?" in text

    await rows.last.get_by_role("button", name=f"Answer {number}").click()
    focused = await window.evaluate("document.activeElement.querySelector('.card-question')?.textContent")
    assert focused == "What is the growth pattern?"

    await window.emulate_media(media="print")
    assert await window.locator("#notice").is_visible()
    assert await window.locator("#canvas").is_visible()
    assert await window.locator(".card").last.is_visible()
    for hidden in ("#tools", "#ask", "#slides"):
        assert not await window.locator(hidden).is_visible()
