"""The page in a browser, with what tests need of it: a window of its own, its complaints, a slide chosen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

WIDTH_PX, HEIGHT_PX = 1366, 768
# On two busy cores the first tile of a slide takes seconds.
PATIENCE_MS = 30_000


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
            await self.window.locator(f'#slide-list [data-slide="{slide_id}"] [aria-current]').wait_for()

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


@asynccontextmanager
async def browsed(browser: Any, url: str, **options: Any) -> AsyncIterator[Browsed]:
    """A window until the block ends; raises AssertionError then for what the browser complained about."""
    context = await browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, **options)
    context.set_default_timeout(PATIENCE_MS)
    page = Browsed(await context.new_page(), url)
    page.window.on("pageerror", lambda error: page.complaints.append(f"script: {error}"))
    page.window.on("console", lambda message: _note(page, message))

    async def keep_inside(route: Any) -> None:
        if route.request.url.startswith(url):
            await route.fallback()
        else:
            page.complaints.append(f"outside: {route.request.url}")
            await route.abort()

    await context.route("**/*", keep_inside)
    try:
        yield page
        assert page.complaints == []
    finally:
        await context.close()


def _note(page: Browsed, message: Any) -> None:
    # Refused requests are written there too, and are for the page to handle.
    if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
        page.complaints.append(f"console: {message.text}")
