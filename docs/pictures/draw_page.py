"""Makes the pictures of the page in docs/pictures: `make pictures`.

A server is started for it, with the demo model behind a real vLLM; `--at` takes one that runs already.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from browsed_page import FLAGS, PROGRAMS, Browsed, browsed
from running_server import running_server, upload

from synthetic.write_slide import write_sample_slide

_FOLDER = Path(__file__).parent
# With necrosis in the lower right, so that "where?" has an answer.
_SEED = 101
_QUALITY = 72


async def _answer(page: Browsed, slide_id: str) -> None:
    """A slide with answers about it."""
    await page.open(slide_id)
    await page.new_conversation()
    await page.answer("What is the growth pattern?")
    card = await page.answer("Where is the necrosis?")
    await card.get_by_role("button", name="Agree", exact=True).click()
    await _sharp(page)


async def _region(page: Browsed, slide_id: str) -> None:
    """A region with necrosis, and what the model says of it."""
    await page.open(slide_id)
    await page.sees_the_slide()
    await page.new_conversation()
    await page.window.locator('#tools [data-command="rectangle"]').click()
    await page.drag(0.52, 0.52, 0.86, 0.86)
    await page.chosen_region()
    await page.answer("Is there necrosis?")
    await _sharp(page)


async def _evidence(page: Browsed, slide_id: str) -> None:
    """On which tissue an answer rests."""
    await page.open(slide_id)
    await page.sees_the_slide()
    await page.new_conversation()
    card = await page.answer("Where is the necrosis?")
    await card.locator(".evidence-button").click()
    await card.locator(".finding").wait_for()
    await page.window.locator("#question").focus()
    await page.window.mouse.move(5, 5)
    await _sharp(page)


async def _doubt(page: Browsed, slide_id: str) -> None:
    """Wordings compared, and a question that the model was not taught to answer."""
    await page.open(slide_id)
    await page.new_conversation()
    card = await page.answer("Is there necrosis?")
    await card.get_by_role("button", name="Are you sure?").click()
    await card.locator(".sureness[data-comparison]").wait_for()
    await page.ask("What treatment do you recommend?")
    await _sharp(page)


async def _failure(page: Browsed, slide_id: str) -> None:
    """A slide that does not say its resolution."""
    await page.open(slide_id)
    await page.window.locator("#mpp").wait_for()
    await _sharp(page)


async def _narrow(page: Browsed, slide_id: str) -> None:
    """A telephone's width."""
    await page.window.set_viewport_size({"width": 320, "height": 640})
    await page.open(slide_id)
    await page.show("answers")
    await page.window.locator(".card").first.wait_for()


async def _sharp(page: Browsed) -> None:
    await page.window.wait_for_load_state("networkidle")
    await page.window.wait_for_timeout(800)  # the viewer blends in what came last


_PICTURES: dict[str, Callable[[Browsed, str], Awaitable[None]]] = {
    "page-answer": _answer,
    "page-region": _region,
    "page-evidence": _evidence,
    "page-doubt": _doubt,
    "page-failure": _failure,
    "page-narrow": _narrow,
}


def main() -> None:
    """Draw all, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*_PICTURES, []], help="all where none is named")
    parser.add_argument("--at", help="address of a server that runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, _server(options.at, Path(scratch)) as url:
        slides = _upload_slides(url, Path(scratch))
        asyncio.run(_draw(url, slides, options.names or list(_PICTURES)))


@contextmanager
def _server(at: str | None, scratch: Path) -> Iterator[str]:
    if at:
        yield at
        return
    with running_server(scratch / "data", scratch / "up.log") as running:
        yield running.url


def _upload_slides(url: str, scratch: Path) -> dict[str, str]:
    whole, bare = scratch / "case101.svs", scratch / "case102-no-resolution.svs"
    write_sample_slide(whole, seed=_SEED)
    write_sample_slide(bare, seed=_SEED + 1)
    bare.write_bytes(bare.read_bytes().replace(b"MPP", b"XPP"))
    with httpx.Client(base_url=url, timeout=300) as client:
        failed = upload(client, bare)["id"]
        ready = upload(client, whole)["id"]
    return {name: failed if name == "page-failure" else ready for name in _PICTURES}


async def _draw(url: str, slides: dict[str, str], names: list[str]) -> None:
    from playwright.async_api import async_playwright

    program = os.environ.get("EYEPIECE_BROWSER") or next(filter(None, map(shutil.which, PROGRAMS)))
    async with async_playwright() as playwright:
        browser: Any = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        for name in names:
            async with browsed(browser, url, reduced_motion="reduce") as page:
                await _PICTURES[name](page, slides[name])
                path = _FOLDER / f"{name}.webp"
                path.write_bytes(_webp(await page.window.screenshot()))
                print(path.name, path.stat().st_size, "bytes")
        await browser.close()


def _webp(png: bytes) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    _, encoded = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return bytes(encoded)


if __name__ == "__main__":
    main()
