"""What a model of levels was given, over the slide; the levels here are written down, and the model is called one."""

import json
from typing import Any

from browsed_page import Browsed

MEANING = "This is what the model was given of the slide. It does not say why the model answered as it did."


def box(x: int, y: int, side: int) -> dict[str, int]:
    return {"x": x, "y": y, "width": side, "height": side}


def levels_of(slide: dict[str, Any], only: int | None = None) -> dict[str, Any]:
    regions = []
    for index, x in enumerate((1024, 0)):
        cells = (
            []
            if only is None
            else [
                {
                    "kind": "neoplastic",
                    "centroid": [x + 5, 5],
                    "mended": False,
                    "contour": [[x, 0], [x + 9, 0], [x + 9, 9], [x, 0]],
                }
            ]
        )
        patches = [
            {"rank": rank, "box": box(x + 256 * rank, 256, 256), "cell_counts": None, "cells": cells} for rank in (1, 2)
        ]
        regions.append({"index": index, "box": box(x, 0, 1024), "cell_counts": None, "patches": patches})
    shown = regions if only is None else [regions[only]]
    return {
        "object": "slide.levels",
        "meaning": MEANING,
        "slide_id": slide["id"],
        "model": "demo",
        "region_count": 2,
        "regions": shown,
    }


async def test_exactly_the_inputs_are_shown_in_their_order_and_a_click_leads_there(
    page: Browsed, slide: dict[str, Any]
) -> None:
    window = page.window

    async def models(route: Any) -> None:
        answer = await route.fetch()
        listed = await answer.json()
        listed["data"][0]["kind"] = "levels"
        await route.fulfill(response=answer, body=json.dumps(listed))

    async def levels(route: Any) -> None:
        only = 1 if "region=1" in route.request.url else 0 if "region=0" in route.request.url else None
        await route.fulfill(json=levels_of(slide, only))

    await window.route("**/v1/models", models)
    await window.route("**/levels?*", levels)
    await page.open(slide["id"])
    await page.sees_the_slide()
    await window.locator("#canvas").focus()
    await window.keyboard.press("l")

    rows = window.locator("#levels .given > li > button")
    await rows.first.wait_for()
    assert [text.split(":")[0] for text in await rows.all_inner_texts()] == ["Region 1", "Region 2"]
    assert MEANING in await window.locator("#levels").inner_text()
    drawn = window.locator(".given-region rect.line")
    assert [await it.get_attribute("x") for it in await drawn.all()] == ["1024", "0"]
    await rows.nth(1).click()
    await window.locator(".given-patch").first.wait_for()
    assert await window.locator(".given-patch text").all_text_contents() == ["1", "2"]
    assert await window.locator(".given-cell").count() == 2
    view = await page.view_at_rest()
    assert view["x"] < 512 < view["x"] + view["width"]
    assert view["width"] < slide["width"]
