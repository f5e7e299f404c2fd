"""The page in a browser, with what tests need of it: a window of its own, its complaints, a slide chosen."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

WIDTH_PX, HEIGHT_PX = 1366, 768
_SIZE = {"width": WIDTH_PX, "height": HEIGHT_PX}
# No name but those of this machine is known to the browser, and it has no use for its sandbox, GPU or own services.
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
# Debian's, Ubuntu's and Google's names. Playwright's own browsers are not used: they come from a server of their own.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# On two busy cores a slide is encoded in a minute.
PATIENCE_MS = 90_000
_OF_REQUESTS = ("Failed to load resource", "failed to load: %s", "loaded before reset")


@dataclass
class Browsed:
    """A window of the browser; `window` is Playwright's page."""

    window: Any
    url: str
    # Errors in scripts, reports of the content security policy, requests that left the origin.
    complaints: list[str] = field(default_factory=list)

    async def open(self, slide_id: str | None = None) -> None:
        """Load the page, and wait until the models are known and the slide is chosen."""
        await self.window.goto(f"{self.url}/{f'#{slide_id}' if slide_id else ''}")
        await self.window.locator("#notice-model:not(:empty)").wait_for()
        if slide_id:
            await self.window.locator(f'#slide-list [data-slide="{slide_id}"] [aria-current]').wait_for(
                state="attached"
            )
            await self._has_its_conversations()

    async def _has_its_conversations(self) -> None:
        """Earlier ones come behind the slide; cards are counted from there."""
        await self.window.locator('#thread[aria-busy="false"]').wait_for(state="attached")

    async def leave(self) -> None:
        """Leave the window as a new one would be, but for what the browser has in its cache."""
        await self.window.unroute_all(behavior="ignoreErrors")
        await self.window.evaluate("location.origin === 'null' || localStorage.clear()")
        await self.window.goto("about:blank")
        await self.window.context.set_offline(False)
        await self.window.context.clear_permissions()
        await self.window.emulate_media(media="null")
        await self.window.set_viewport_size(_SIZE)
        self.complaints.clear()

    async def choose(self, slide_id: str) -> None:
        """Choose another slide from the list."""
        await self.window.locator(f'#slide-list [data-slide="{slide_id}"] .slide-row').click()

    async def show(self, view: str) -> None:
        """On a narrow screen, show that part of the page; on a wide one all are there."""
        tab = self.window.locator(f"#view-{view}")
        if await tab.is_visible():
            await tab.click()

    async def new_conversation(self) -> None:
        """Begin one, when the earlier ones have been found."""
        await self.window.locator("#question:enabled").wait_for()
        await self._has_its_conversations()
        if await self.window.locator("#new-conversation").is_enabled():
            await self.window.locator("#new-conversation").click()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the browser does not see."""
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.05)

    async def until_true(self, script: str) -> None:
        """Wait for a script to be true. Playwright's own way evaluates text in the page, which the policy forbids."""
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while not await self.window.evaluate(script):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.05)

    async def ask(self, question: str) -> Any:
        """Type a question and send it; the card that it gets."""
        window = self.window
        await window.locator("#question:enabled").fill(question)
        before = await window.locator(".card").count()
        await window.locator("#send").click()
        card = window.locator(".card").nth(before)
        await card.wait_for()
        return card

    async def answer(self, question: str) -> Any:
        """The same, once the answer is complete."""
        card = await self.ask(question)
        await card.and_(self.window.locator('[data-state="done"]')).wait_for()
        return card

    async def sees_the_slide(self) -> None:
        """Wait until the slide is open in the viewer, at rest."""
        await self.window.locator("#magnification:not(:empty)").wait_for()
        await self.view_at_rest()

    async def canvas(self) -> tuple[float, float, float, float]:
        """Where the slide's canvas is in the window: x, y, width, height."""
        box = await self.window.locator("#canvas").bounding_box()
        return box["x"], box["y"], box["width"], box["height"]

    async def drag(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Drag over the canvas, from and to shares of its size."""
        await self.drag_along([(x1, y1), (x2, y2)])

    async def tab_to(self, selector: str) -> None:
        """Press Tab until the first element of this kind has the focus."""
        for _ in range(80):
            await self.window.keyboard.press("Tab")
            if await self.window.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"Tab does not come to {selector}")

    async def view(self) -> dict[str, float]:
        """What of the slide is in view, in pixels of level 0, as the layers over it are placed; `scale` is pixels of
        the screen for one of these."""
        transform = await self.window.locator("svg.layers > g").get_attribute("transform")
        x, y, scale = map(float, re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", transform))
        _, _, width, height = await self.canvas()
        return {"x": -x / scale, "y": -y / scale, "width": width / scale, "height": height / scale, "scale": scale}

    async def view_at_rest(self, other_than: dict[str, float] | None = None) -> dict[str, float]:
        """The same, once it does not move any more, and has begun to where `other_than` is the view before."""
        before, same, now = None, 0, await self.view()
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while same < 3 or now == other_than:
                await self.window.wait_for_timeout(60)
                now = await self.view()
                before, same = now, same + 1 if now == before else 0
        return now

    async def um_per_px(self, mpp: float) -> float:
        """µm on the slide under a pixel of the screen."""
        return mpp / (await self.view())["scale"]

    async def drawn_box(self) -> dict[str, float]:
        """The box that is being placed by keys, in pixels of level 0."""
        points = await self.window.locator('[data-layer="drawing"] polygon.line').get_attribute("points")
        corners = [tuple(map(float, point.split(","))) for point in points.split()]
        left, top = (min(corner[axis] for corner in corners) for axis in (0, 1))
        right, bottom = (max(corner[axis] for corner in corners) for axis in (0, 1))
        return {"x": left, "y": top, "width": right - left, "height": bottom - top}

    async def drag_along(self, shares: Sequence[tuple[float, float]]) -> None:
        """Drag over the canvas through places in shares of its size."""
        x, y, width, height = await self.canvas()
        places = [(x + across * width, y + down * height) for across, down in shares]
        await self.window.mouse.move(*places[0])
        await self.window.mouse.down()
        for place in places[1:]:
            await self.window.mouse.move(*place, steps=6)
        await self.window.mouse.up()

    async def chosen_region(self) -> str:
        """Wait until a region is what the next question is about; its label."""
        await self.window.locator('#scope input[value^="reg_"]:checked').wait_for()
        words: str = await self.window.locator("#scope .chosen").inner_text()
        return words.split(" ")[0]


@asynccontextmanager
async def browsed(browser: Any, url: str, **options: Any) -> AsyncIterator[Browsed]:
    """A window until the block ends; raises AssertionError then for what the browser complained about."""
    page = await opened(browser, url, **options)
    try:
        yield page
        assert page.complaints == [], page.complaints
    finally:
        await page.window.context.close()


async def opened(browser: Any, url: str, **options: Any) -> Browsed:
    """A window of its own, which stays open."""
    context = await browser.new_context(viewport=_SIZE, **options)
    context.set_default_timeout(PATIENCE_MS)
    page = Browsed(await context.new_page(), url)
    page.window.on("pageerror", lambda error: page.complaints.append(f"script: {error}"))
    page.window.on("console", lambda message: _note(page, message))
    # Listened to and not routed: a browser whose requests are routed keeps nothing in its cache.
    context.on("request", lambda request: _note_outside(page, request.url))
    return page


def _note_outside(page: Browsed, address: str) -> None:
    if not address.startswith((page.url, f"blob:{page.url}", "about:", "data:")):
        page.complaints.append(f"outside: {address}")


def _note(page: Browsed, message: Any) -> None:
    # Refused requests are written there too, by the browser and by the viewer, and are for the page to handle.
    if message.type in ("error", "warning") and not any(it in message.text for it in _OF_REQUESTS):
        page.complaints.append(f"console: {message.text}")
