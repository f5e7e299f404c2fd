"""Keyboard, screen readers and small windows: what WCAG 2.2 AA asks for and a machine can look at."""

from typing import Any

import pytest
from axe_findings import grave_findings
from browsed_page import Browsed, browsed
from running_server import RunningServer

# Pixels around what has the focus; of the slide they lie above its picture, which would cover an outline.
_WIDTH_OF_FOCUS = """parseFloat(document.activeElement.id === "canvas"
    ? getComputedStyle(document.activeElement, "::after").borderTopWidth
    : getComputedStyle(document.activeElement).outlineWidth)"""


# Where Tab comes to, from where; the slide and the tools are reached from the top.
_TAB_STOPS = {
    "#notice": '#tools button[tabindex="0"]',
    "#slide-search": "#canvas",
    "#scope input:checked": "#question",
    "#upload": "#slide-search",
}
# How many different views there were, frame by frame, from now until half a second after the first change.
_WATCH = """() => void (globalThis.viewsSeen = new Promise((tell) => {
    const ground = document.querySelector("svg.layers > g");
    const seen = new Set();
    let changed = null;
    const look = () => {
        seen.add(ground.getAttribute("transform"));
        if (seen.size > 1) changed ??= performance.now();
        if (changed !== null && performance.now() - changed > 500) tell(seen.size);
        else requestAnimationFrame(look);
    };
    look();
}))"""


async def test_axe_finds_nothing_grave_with_everything_open(
    page: Browsed, slide: dict[str, Any], evidence_of: Any
) -> None:
    window = page.window
    await evidence_of(page)
    await page.open(slide["id"])
    await page.sees_the_slide()
    card = await page.answer("Where is the necrosis?")
    await card.locator(".evidence-button").click()
    await card.locator(".cells").wait_for()
    await window.locator("#canvas").focus()
    await window.keyboard.press("t")
    assert await grave_findings(window) == []

    await window.keyboard.press("?")
    assert await grave_findings(window) == []
    await window.keyboard.press("Escape")
    await window.locator("#report-opener").click()
    assert await grave_findings(window) == []


async def test_keys_hold_while_the_slide_has_the_focus_and_until_they_are_turned_off(
    page: Browsed, slide: dict[str, Any]
) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.sees_the_slide()
    tiles = window.locator('#tools [data-command="tiles"]')

    await window.locator("#slide-search").focus()
    await window.keyboard.press("t")
    assert await tiles.get_attribute("aria-pressed") == "false"
    await window.locator("#canvas").focus()
    await window.keyboard.press("t")
    assert await tiles.get_attribute("aria-pressed") == "true"
    await window.keyboard.press("t")
    await window.keyboard.press("5")
    before = await page.view_at_rest()
    await window.keyboard.press("d")
    assert (await page.view_at_rest())["x"] > before["x"]

    await window.keyboard.press("?")
    assert await window.locator("#keys[open]").count() == 1
    await window.locator("#letters").uncheck()
    await window.keyboard.press("Escape")
    await window.locator("#canvas").focus()
    await window.keyboard.press("t")
    assert await tiles.get_attribute("aria-pressed") == "false"
    before = await page.view_at_rest()
    await window.keyboard.press("Shift+ArrowLeft")
    left = await page.view_at_rest()
    assert before["x"] - left["x"] == pytest.approx(before["width"] / 2, rel=0.02)


async def test_the_focus_is_seen(page: Browsed, slide: dict[str, Any]) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.sees_the_slide()
    for before, place in _TAB_STOPS.items():
        await window.locator(before).focus()
        await page.tab_to(place)
        outline = await window.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert float(outline.removesuffix("px")) >= 2, place


async def test_who_wants_no_motion_gets_none(browser: Any, server: RunningServer, slide: dict[str, Any]) -> None:
    async with browsed(browser, server.url, reduced_motion="reduce") as page:
        await page.open(slide["id"])
        await page.sees_the_slide()
        await page.window.locator("#canvas").focus()
        await page.window.evaluate(_WATCH)
        await page.window.keyboard.press("5")

        assert await page.window.evaluate("globalThis.viewsSeen") == 2


async def test_at_320_px_nothing_is_cut_off(browser: Any, server: RunningServer, slide: dict[str, Any]) -> None:
    async with browsed(browser, server.url) as page:
        window = page.window
        await page.open(slide["id"])
        await window.set_viewport_size({"width": 320, "height": 640})
        for view in ("slides", "answers", "viewer"):
            await window.locator(f"#view-{view}").click()
            wide = await window.evaluate("document.documentElement.scrollWidth")
            assert wide <= 320, view
        await page.sees_the_slide()
        await window.locator('#tools [data-command="rectangle"]').click()
        await window.locator("#view-answers").click()
        assert await window.locator("#scope").is_visible()
