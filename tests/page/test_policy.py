"""Everybody can use the page, and nobody else can: keys alone do, and a policy that nothing breaks."""

from typing import Any

import httpx
from browsed_page import Browsed
from running_server import RunningServer


async def test_a_question_is_asked_and_judged_with_keys_alone(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    await page.window.locator("#question:enabled").wait_for()
    await page.window.keyboard.press("Tab")  # the link to the slide
    await page.window.keyboard.press("Tab")
    await page.window.locator("a:focus").get_by_text("Skip to the question").wait_for()
    await page.window.keyboard.press("Enter")
    await page.window.keyboard.type("What is the growth pattern?")
    before = await page.window.locator(".card").count()
    await page.window.keyboard.press("Enter")
    card = page.window.locator(".card").nth(before)
    await card.and_(page.window.locator('[data-state="done"]')).wait_for()
    await page.window.locator("#spoken").get_by_text("The growth pattern is glandular.").wait_for(state="attached")

    await card.get_by_role("button", name="Agree", exact=True).focus()
    await page.window.keyboard.press("Space")

    await card.locator('[data-verdict="agree"][aria-pressed="true"]').wait_for()


async def test_markup_cannot_be_set_by_any_script(page: Browsed) -> None:
    await page.open()
    thrown = await page.window.evaluate(
        """() => {
          try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch (error) { return error.name; }
        }"""
    )
    assert thrown == "TypeError"
    assert any("TrustedHTML" in it for it in page.complaints)
    page.complaints.clear()


def test_every_file_of_the_page_has_the_policy_and_is_asked_for_again_by_its_version(server: RunningServer) -> None:
    for path in ("/", "/page/scripts/main.js", "/page/style/base.css"):
        first = httpx.get(f"{server.url}{path}")
        assert "default-src 'none'" in first.headers["Content-Security-Policy"]
        assert "unsafe" not in first.headers["Content-Security-Policy"]
        assert first.headers["Cache-Control"] == "no-cache"
        again = httpx.get(f"{server.url}{path}", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{server.url}/page/../pyproject.toml").status_code == 404
    assert httpx.get(f"{server.url}/page/%2e%2e/files.py").status_code == 404
