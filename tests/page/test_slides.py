"""Slides come in, are followed until they are ready, say why they are not and what helps, and go."""

import base64
from pathlib import Path
from typing import Any

from browsed_page import Browsed
from running_server import RunningServer

from synthetic.write_slide import write_sample_slide

# What a browser does with a file that is dropped onto the page.
_DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (it) => it.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name));
  for (const type of ["dragover", "drop"])
    window.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


async def drop(page: Browsed, path: Path) -> None:
    await page.window.evaluate(_DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


async def test_a_slide_without_resolution_is_dropped_given_one_and_ready(page: Browsed, tmp_path: Path) -> None:
    path = tmp_path / "without-mpp.svs"
    write_sample_slide(path, seed=9, width_px=1536, height_px=1024)
    path.write_bytes(path.read_bytes().replace(b"MPP", b"XPP"))
    await page.open()
    await page.window.evaluate("window.loadedOnce = true")

    await drop(page, path)

    field = page.window.locator("#mpp")
    await field.wait_for()
    assert "µm" in await page.window.locator("#slide-state").inner_text()
    await field.fill("5")
    await field.press("Enter")
    assert "from 0.05 to 4" in await page.window.locator("#mpp-says").inner_text()
    await field.fill("0.5")
    await field.press("Enter")
    await page.window.locator("#question:enabled").wait_for()
    assert await page.window.locator("#current-slide").inner_text() == "without-mpp.svs ready"
    assert await page.window.evaluate("window.loadedOnce")


async def test_what_is_no_slide_is_refused_in_words_and_can_be_dismissed(page: Browsed, tmp_path: Path) -> None:
    path = tmp_path / "letter.svs"
    path.write_bytes(b"Dear colleague")
    await page.open()

    await drop(page, path)

    row = page.window.locator("#uploads li.has-failed")
    await row.wait_for()
    assert len(await row.locator(".upload-words").inner_text()) > 20
    await row.get_by_role("button", name="Dismiss").click()
    assert await page.window.locator("#uploads li").count() == 0


async def test_the_slide_is_shown_tile_by_tile(page: Browsed, slide: dict[str, Any]) -> None:
    tiles: list[int] = []
    page.window.on("response", lambda it: tiles.append(it.status) if "/tiles/" in it.url else None)
    await page.open(slide["id"])
    await page.sees_the_slide()

    assert tiles
    assert set(tiles) == {200}
    await page.until_true(
        """() => {
          const canvas = document.querySelector("#canvas canvas");
          const {data} = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1);
          return data[3] === 255 && data[0] > data[1] + 20; // tissue is pink
        }"""
    )


async def test_a_slide_is_found_by_name_and_deleted(page: Browsed, server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "to-be-deleted.svs"
    write_sample_slide(path, seed=11, width_px=1024, height_px=768)
    with server.client() as client, path.open("rb") as file:
        slide_id = client.post("/v1/slides", files={"file": (path.name, file)}).json()["id"]
    await page.open()
    await page.window.locator("#slide-search").fill("to-be-del")
    await page.window.locator("#slide-list li").and_(page.window.locator(f'[data-slide="{slide_id}"]')).wait_for()
    await page.until_true("document.querySelectorAll('#slide-list li').length === 1")

    await page.window.get_by_role("button", name="Delete to-be-deleted.svs").click()
    await page.window.get_by_role("button", name="Delete the slide").click()

    await page.until_true("document.querySelectorAll('#slide-list li').length === 0")
    with server.client() as client:
        assert client.get(f"/v1/slides/{slide_id}").status_code == 404
