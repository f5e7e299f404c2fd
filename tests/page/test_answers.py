"""Answers stream, stop, break off and are asked again; each says whose it is and stays with its slide."""

from typing import Any

import httpx
from browsed_page import Browsed
from running_server import RunningServer


async def test_an_answer_streams_and_stopping_it_ends_the_models_request(
    page: Browsed, slide: dict[str, Any], server: RunningServer
) -> None:
    await page.open(slide["id"])
    question = f"Which pattern? Say it slowly to {id(page)}."
    card = await page.ask(question)
    await card.locator(".answer-text", has_text="word3").wait_for()
    url = f"{server.environment_of('EYEPIECE_LLM_URL')}/running"
    await page.until(lambda: httpx.get(url).text == "1")

    await page.window.locator("#question").press("Escape")

    await card.get_by_text("Stopped, not remembered.").wait_for()
    assert "word600" not in await card.locator(".answer-text").inner_text()
    await page.until(lambda: httpx.get(url).text == "0")
    with server.client() as client:
        listed = client.get("/v1/conversations", params={"slide": slide["id"]}).json()["data"]
    assert question not in str(listed)


async def test_what_broke_off_is_asked_again_and_is_one_turn(
    page: Browsed, other_slide: dict[str, Any], server: RunningServer
) -> None:
    await page.open(other_slide["id"])
    await page.new_conversation()
    question = f"Which pattern breaks off in {id(page)}?"
    card = await page.ask(question)
    await card.get_by_text("The answer broke off").wait_for()

    await card.get_by_role("button", name="Ask again").click()

    await card.and_(page.window.locator('[data-state="done"]')).wait_for()
    assert await card.locator(".answer-text").inner_text() == "This answer is whole now."
    with server.client() as client:
        listed = client.get("/v1/conversations", params={"slide": other_slide["id"]}).json()["data"]
    assert [it["turns"] for it in listed if it["title"] == question] == [1]


async def test_a_connection_cut_behind_the_answer_makes_no_second_turn(
    page: Browsed, other_slide: dict[str, Any], server: RunningServer
) -> None:
    """The server has finished and remembered; its last event never came."""
    await page.open(other_slide["id"])
    await page.new_conversation()
    question = f"What is the growth pattern of {id(page)}?"
    await page.window.evaluate(
        """() => {
          const real = window.fetch;
          window.fetch = async (url, options) => {
            const response = await real(url, options);
            if (!String(url).endsWith("/questions")) return response;
            window.fetch = real;
            const whole = await response.text();
            const cut = whole.slice(0, whole.indexOf("event: done"));
            return new Response(new Blob([cut]).stream(), {status: 200, headers: response.headers});
          };
        }"""
    )
    card = await page.ask(question)
    await card.get_by_role("button", name="Ask again").click()

    await card.and_(page.window.locator('[data-state="done"]')).wait_for()
    assert await card.locator(".answer-text").inner_text() == "The growth pattern is glandular."
    with server.client() as client:
        listed = client.get("/v1/conversations", params={"slide": other_slide["id"]}).json()["data"]
    assert [it["turns"] for it in listed if it["title"] == question] == [1]


async def test_a_card_says_whose_answer_it_is_and_so_does_its_copy(page: Browsed, slide: dict[str, Any]) -> None:
    await page.window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.open(slide["id"])
    card = await page.answer("What is the growth pattern?")
    facts = await card.locator(".card-facts").inner_text()
    await card.locator("img.thumbnail:visible").wait_for()

    await card.get_by_role("button", name="Copy").click()
    await card.get_by_role("button", name="Copied").wait_for()

    copied = await page.window.evaluate("navigator.clipboard.readText()")
    request_id = await card.locator("dd[title]").last.get_attribute("title")
    assert all(word in facts for word in (slide["filename"], "whole slide", "demo", slide["encoder_id"][:8]))
    told = (slide["filename"], slide["id"], "whole slide", "demo", slide["encoder_id"], request_id, "Research use only")
    assert [word for word in told if word not in copied] == []
    assert "Answer: The growth pattern is glandular." in copied


async def test_an_answer_stays_with_its_slide_and_the_box_asks_before_it_sends_to_another(
    page: Browsed, slide: dict[str, Any], other_slide: dict[str, Any]
) -> None:
    await page.open(slide["id"])
    await page.new_conversation()
    await page.ask("Which pattern? Say it slowly.")
    await page.choose(other_slide["id"])
    thread = page.window.locator("#thread")
    assert "slowly" not in await thread.inner_text()
    await page.window.get_by_text(f"An answer about {slide['filename']} is being written").wait_for()

    await page.window.locator("#question:enabled").fill("What grade is the tumour?")
    await page.window.locator("#send").click()
    await page.window.get_by_text(f"Another slide is shown now: {other_slide['filename']}").wait_for()
    assert "What grade" not in await thread.inner_text()
    await page.window.get_by_role("button", name=f"Ask about {other_slide['filename']}").click()
    await thread.get_by_text("What grade is the tumour?").wait_for()

    await page.choose(slide["id"])
    await thread.get_by_text("word3").wait_for()
    assert "What grade" not in await thread.inner_text()
    await page.window.locator("#stop").click()


async def test_markup_in_an_answer_is_text(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    card = await page.answer("Which pattern has markup?")
    assert "<img src=x onerror" in await card.locator(".answer-text").inner_text()
    assert await card.locator(".answer-text img").count() == 0
    assert "Eyepiece" in await page.window.title()
