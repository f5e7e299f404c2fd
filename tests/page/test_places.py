"""Where things are on the slide: places that answers name, tiles that the model was given, magnification, lengths."""

import io
import re
from typing import Any

import h5py
import pytest
from browsed_page import Browsed
from running_server import RunningServer

KEYS_OF_OBJECTIVES = {"1": 2, "2": 5, "3": 10, "4": 20, "5": 40}


async def test_a_place_in_an_answer_leads_there_and_the_tiles_seen_are_those_of_the_features(
    page: Browsed, slide: dict[str, Any], server: RunningServer
) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.sees_the_slide()
    card = await page.answer("Where is the necrosis?")

    link = card.locator("button.place")
    assert await link.inner_text() == "lower right quadrant"
    await link.click()

    with server.client() as client:
        content = client.get(f"/v1/slides/{slide['id']}/features").content
    with h5py.File(io.BytesIO(content)) as features:
        coords = features["coords"][()]
        side = int(features.attrs["tile_px_level0"])
    (left, top), (right, bottom) = coords.min(axis=0), coords.max(axis=0) + side
    view = await page.view_at_rest()
    assert view["x"] >= (left + right) / 2 - 1
    assert view["y"] >= (top + bottom) / 2 - 1
    assert view["x"] + view["width"] <= right + 1
    assert view["y"] + view["height"] <= bottom + 1

    await window.locator("#canvas").focus()
    await window.keyboard.press("t")
    drawn = await window.locator(".tile-outlines").get_attribute("d") or ""
    rectangles = re.findall(rf"M(\d+) (\d+)h{side}v{side}h-{side}z", drawn)
    assert len(rectangles) == slide["tile_count"] == drawn.count("M")
    assert [[int(x), int(y)] for x, y in rectangles] == coords.tolist()
    await window.keyboard.press("t")
    assert await window.locator(".tile-outlines").count() == 0


async def test_magnification_scale_bar_and_lengths_are_exact(page: Browsed, slide: dict[str, Any]) -> None:
    window = page.window
    await page.open(slide["id"])
    await page.sees_the_slide()
    await window.locator("#canvas").focus()

    for key, objective in KEYS_OF_OBJECTIVES.items():
        await window.keyboard.press(key)
        await page.view_at_rest()
        um_per_px = await page.um_per_px(slide["mpp"])
        assert um_per_px == pytest.approx(10 / objective, rel=0.01)
        assert await window.locator("#magnification").inner_text() == f"{objective}×"
        bar = await window.locator("#scale-bar .bar").bounding_box()
        said_um = um_of(await window.locator("#scale-bar .bar-words").inner_text())
        assert bar["width"] * um_per_px == pytest.approx(said_um, rel=0.01)

    await window.keyboard.press("m")
    await page.drag(0.3, 0.5, 0.7, 0.5)
    _, _, width, _ = await page.canvas()
    assert um_of(await window.locator("#tool-words").inner_text()) == pytest.approx(0.4 * width * um_per_px, rel=0.01)
    # Beside the pointer stands where it is, which is another way to the same.
    x1, x2 = [await x_beside_the_pointer(page, share) for share in (0.1, 0.9)]
    assert x2 - x1 == pytest.approx(0.8 * width * um_per_px, abs=1.5)
    assert await window.locator("#colour").inner_text() == "not colour-managed"


def um_of(words: str) -> float:
    """A length in words, in µm."""
    number, unit = words.split()
    return float(number) * {"µm": 1, "mm": 1000}[unit]


async def x_beside_the_pointer(page: Browsed, share: float) -> float:
    x, y, width, height = await page.canvas()
    await page.window.mouse.move(x + share * width, y + 0.5 * height)
    words = await page.window.locator("#position").inner_text()
    return float(re.sub(r"\s", "", words.removeprefix("x ").split(",")[0]))
