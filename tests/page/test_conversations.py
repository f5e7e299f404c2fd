"""Conversations come back after a reload, are deleted for good, and warn when they get long; verdicts are kept."""

from typing import Any

from browsed_page import Browsed
from running_server import RunningServer, ask


async def test_they_come_back_after_a_reload_and_are_deleted_for_good(
    page: Browsed, slide: dict[str, Any], server: RunningServer
) -> None:
    await page.open(slide["id"])
    await page.new_conversation()
    await page.answer("How dense are the lymphocytes?")
    await page.window.reload()
    card = page.window.locator(".card").last
    await card.get_by_text("How dense are the lymphocytes?").wait_for()
    assert slide["encoder_id"][:8] in await card.locator(".card-facts").inner_text()

    await page.window.get_by_role("button", name="Delete this conversation").click()
    await page.window.get_by_role("button", name="Delete it").click()

    await page.window.get_by_text("No questions yet.").wait_for()
    with server.client() as client:
        listed = client.get("/v1/conversations", params={"slide": slide["id"]}).json()["data"]
    assert "How dense are the lymphocytes?" not in [it["title"] for it in listed]


async def test_a_conversation_longer_than_any_in_training_warns_before_the_question(
    page: Browsed, other_slide: dict[str, Any], server: RunningServer
) -> None:
    with server.client() as client:
        first = ask(client, other_slide["id"], "Which pattern is the first?")
        for _ in range(7):
            ask(client, other_slide["id"], "And?", conversation_id=first["conversation_id"])
    await page.open(other_slide["id"])
    warning = page.window.locator("#long-conversation")
    await warning.get_by_text("trained on no more than 8").wait_for()

    await warning.get_by_role("button", name="Begin a new conversation").click()

    assert await warning.inner_text() == ""
    card = await page.answer("What is the growth pattern?")
    assert await card.locator('[data-code="beyond_trained_turns"]').count() == 0


async def test_verdicts_are_kept_with_their_words_and_exported(
    page: Browsed, slide: dict[str, Any], server: RunningServer
) -> None:
    await page.open(slide["id"])
    await page.new_conversation()
    card = await page.answer("What kind of stroma is there?")
    await card.get_by_role("button", name="Disagree").click()
    words = card.get_by_label("Why?")
    why = f"It is desmoplastic, says {id(page)}."
    await words.fill(why)
    await card.get_by_role("button", name="Keep").click()
    await card.get_by_text("Kept.").wait_for()

    await page.window.reload()

    card = page.window.locator(".card").last
    await card.locator('[data-verdict="disagree"][aria-pressed="true"]').wait_for()
    assert await card.get_by_label("Why?").input_value() == why
    with server.client() as client:
        lines = client.get("/v1/feedback").text.splitlines()
    (line,) = [it for it in lines if why in it]
    told = ("What kind of stroma is there?", '"disagree"', '"demo"', slide["id"], "The growth pattern is glandular.")
    assert [word for word in told if word not in line] == []
