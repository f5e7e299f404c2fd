"""One server and one browser for all tests of the page. Everything is real but the language model, whose answers are
written down (tests/support/scripted_vllm.py).

The tests share an event loop (`loop_scope="session"`), because the browser lives in it.
"""

import inspect
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browsed_page import FLAGS, PROGRAMS, Browsed, browsed
from running_server import RunningServer, running_server, upload
from written_evidence import evidence_events

from synthetic.write_slide import write_sample_slide

_TESTS = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in the loop of the browser."""
    for item in items:
        is_async = inspect.iscoroutinefunction(getattr(item, "function", None))
        if is_async and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def browser_program() -> str:
    program = os.environ.get("EYEPIECE_BROWSER") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    return program


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, browser_program: str) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("eyepiece")
    path = os.pathsep.join((str(_TESTS), str(_TESTS / "support")))
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with running_server(folder / "data", folder / "up.log", program="up_with_scripted_vllm", **variables) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(browser_program: str) -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_program, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def slide(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small synthetic slide, ready."""
    return _ready_slide(server, tmp_path_factory, "case101.svs", seed=101)


@pytest.fixture(scope="session")
def other_slide(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Another one, older than `slide`."""
    return _ready_slide(server, tmp_path_factory, "case102.svs", seed=102)


def _ready_slide(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory, name: str, seed: int
) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("slides") / name
    write_sample_slide(path, seed=seed, width_px=3072, height_px=2048)
    with server.client() as client:
        slide = upload(client, path)
    assert slide["status"] == "ready", slide
    return slide


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def window(browser: Any, server: RunningServer) -> AsyncIterator[Browsed]:
    async with browsed(browser, server.url) as page:
        yield page


@pytest_asyncio.fixture(loop_scope="session")
async def page(window: Browsed) -> AsyncIterator[Browsed]:
    """The page in a window of 1366×768, which tests have one after the other: each loads the page anew, and nothing but
    the browser's cache is left of those before. What the browser complains about fails the test."""
    await window.window.bring_to_front()  # a window behind another one draws nothing
    yield window
    complaints = list(window.complaints)
    await window.leave()
    assert complaints == [], complaints


@pytest.fixture
def evidence_of(slide: dict[str, Any]) -> Any:
    """Puts evidence that is written down, or a refusal, in place of the server's: how the numbers are come by is tested
    where they are computed."""

    async def answer_with(page: Browsed, *, stands_out: bool = True, refusal: str | None = None) -> None:
        async def answer(route: Any) -> None:
            if refusal is not None:
                problem = {"code": "evidence_unavailable", "detail": refusal, "status": 409, "title": "", "type": ""}
                await route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(problem))
                return
            body = evidence_events(slide, json.loads(route.request.post_data), stands_out)
            await route.fulfill(content_type="text/event-stream", body=body)

        await page.window.unroute("**/evidence")
        await page.window.route("**/evidence", answer)

    return answer_with
