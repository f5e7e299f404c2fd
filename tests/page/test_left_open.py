"""A page left open over what happens to servers, networks, slides and keys says so, and goes on without a reload."""

import asyncio
from pathlib import Path
from typing import Any

import psutil
from browsed_page import Browsed
from page_keys import keys_command, new_key
from running_server import RunningServer, upload

from synthetic.write_slide import write_sample_slide

CONNECTED = "document.querySelector('#connection').childElementCount === 0"


async def test_a_lost_network(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    await page.window.context.set_offline(True)
    card = await page.ask("What is the growth pattern?")
    await card.get_by_text("The server cannot be reached.").wait_for()
    await page.window.locator("#connection").get_by_text("no network").wait_for()

    await page.window.context.set_offline(False)

    await page.until_true(CONNECTED)
    await card.get_by_role("button", name="Ask again").click()
    await card.and_(page.window.locator('[data-state="done"]')).wait_for()


async def test_a_restarted_server(page: Browsed, slide: dict[str, Any], server: RunningServer) -> None:
    await page.open(slide["id"])
    card = await page.ask("Which pattern? Say it slowly.")
    await card.locator(".answer-text", has_text="word2").wait_for()
    (api,) = [it for it in server.process.children(recursive=True) if it.cmdline()[-1:] == ["api"]]

    api.kill()

    await card.get_by_text("The answer broke off").wait_for()
    await page.window.locator("#connection").get_by_text("The server cannot be reached").wait_for()
    await page.until_true(CONNECTED)
    await card.get_by_role("button", name="Ask again").click()
    await card.locator(".answer-text", has_text="word1").wait_for(timeout=60_000)
    await page.window.locator("#stop").click()
    assert not psutil.pid_exists(api.pid) or api.status() == psutil.STATUS_ZOMBIE
    page.complaints.clear()


async def test_a_deleted_slide(page: Browsed, slide: dict[str, Any], server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "soon-gone.svs"
    write_sample_slide(path, seed=12, width_px=1536, height_px=1024)
    with server.client() as client:
        doomed = upload(client, path)
        await page.open(doomed["id"])
        await page.window.locator("#question:enabled").wait_for()
        client.delete(f"/v1/slides/{doomed['id']}")

    card = await page.ask("What is the growth pattern?")

    await page.window.locator("#slide-state").get_by_text("This slide is gone").wait_for()
    assert await card.get_attribute("data-state") == "refused"
    assert await page.window.locator("#question").is_disabled()
    await page.choose(slide["id"])
    await page.answer("What is the growth pattern?")


async def test_a_key_that_is_withdrawn(page: Browsed, slide: dict[str, Any], server: RunningServer) -> None:
    first, second = (new_key(server) for _ in range(2))
    await page.open(slide["id"])
    await page.window.evaluate("async (key) => (await import('/page/scripts/api.js')).api.signIn(key)", first)
    await page.answer("What is the growth pattern?")
    keys_command(server, "revoke", first[:14])
    with server.client(first) as client:
        while client.get("/v1/models").status_code == 200:  # noqa: ASYNC110 - servers forget a key within 15 s
            await asyncio.sleep(0.5)

    card = await page.ask("What grade is the tumour?")

    dialog = page.window.get_by_role("dialog")
    await dialog.get_by_text("does not take this key any more").wait_for()
    await dialog.get_by_label("API key").fill(second)
    await dialog.get_by_role("button", name="Sign in").click()
    await card.and_(page.window.locator('[data-state="done"]')).wait_for()
    stored = await page.window.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert stored == '[{},{},""]'
