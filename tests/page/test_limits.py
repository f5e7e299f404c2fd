"""What the model cannot answer is said: questions beyond what it was taught, doubts, wordings that contradict."""

from typing import Any

import pytest
from browsed_page import Browsed


async def test_topics_are_offered_and_fill_the_box(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    chips = page.window.locator("#abilities .chip")
    assert "location of necrosis" in await chips.all_inner_texts()
    await chips.get_by_text("location of necrosis").click()
    assert await page.window.locator("#question").input_value() == "Where is the necrosis?"


@pytest.mark.parametrize(
    "question",
    [
        "What treatment do you recommend?",
        "Is the margin clear?",
        "Is the patient male?",
        "Which treatment suits this tumour?",
    ],
)
async def test_what_it_was_not_taught_is_refused_with_what_it_was(
    page: Browsed, slide: dict[str, Any], question: str
) -> None:
    await page.open(slide["id"])
    asked: list[str] = []
    page.window.on("request", lambda request: asked.append(request.url) if "/questions" in request.url else None)
    card = await page.ask(question)
    assert await card.get_attribute("data-state") == "refused"
    said = await card.inner_text()
    assert "was not taught to answer this" in said
    assert "location of necrosis" in said
    assert asked == []


async def test_questions_within_its_topics_are_not_refused(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    refused = await page.window.evaluate(
        """async (questions) => {
          const {beyondAbilities} = await import("/page/scripts/abilities.js");
          const {store} = await import("/page/scripts/store.js");
          return questions.filter((question) => beyondAbilities(question, store.get("model")));
        }""",
        [
            "Is there necrosis?",
            "What kind of tissue is this?",
            "Describe the slide.",
            "How many mitotic figures are there?",
            "Is the tumor high grade?",
            "Which architecture or pattern do you see?",
        ],
    )
    assert refused == []


async def test_a_slide_unlike_the_training_has_a_red_banner_before_any_answer(
    page: Browsed, slide: dict[str, Any]
) -> None:
    words = "This slide is unlike anything that the model was made for."

    async def doubted(route: Any) -> None:
        answer = await (await route.fetch()).json()
        answer["warnings"] = [{"code": "unlike_training", "detail": words}]
        await route.fulfill(json=answer)

    await page.window.route(f"**/v1/slides/{slide['id']}", doubted)
    await page.open(slide["id"])
    banner = page.window.locator("#slide-doubts .grave")
    await banner.get_by_text(words).wait_for()
    red, green, blue = await banner.evaluate("it => getComputedStyle(it).backgroundColor.match(/\\d+/g).map(Number)")
    assert red > 2 * max(green, blue)


async def test_wordings_that_contradict_each_other_are_shown(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    card = await page.answer("Is there necrosis?")
    await card.get_by_role("button", name="Are you sure?").click()
    result = card.locator('.sureness[data-comparison="different"]')
    await result.get_by_text("The wordings got different answers").wait_for()
    assert len(await result.locator("li").all()) == 3
    assert "Answer yes or no." in await result.inner_text()


async def test_wordings_that_agree_are_no_proof(page: Browsed, slide: dict[str, Any]) -> None:
    await page.open(slide["id"])
    card = await page.answer("What is the growth pattern?")
    await card.get_by_role("button", name="Are you sure?").click()
    await card.locator('.sureness[data-comparison="same"]').get_by_text("It may be wrong all the same").wait_for()


@pytest.mark.parametrize(
    ("texts", "comparison"),
    [
        (["Yes, here.", "No."], "different"),
        (["Yes, there is.", "yes there is", "Yes."], "same"),
        (["Yes, in the left.", "Yes, in the right."], "same_stance"),
        (["Glandular.", "glandular"], "same"),
        (["Glandular.", "Solid."], "different"),
        (["Yes.", "Glandular."], "different"),
    ],
)
async def test_answers_are_compared_by_yes_and_no_and_by_their_words(
    page: Browsed, texts: list[str], comparison: str
) -> None:
    await page.open()
    found = await page.window.evaluate(
        "async (texts) => (await import('/page/scripts/sureness.js')).comparison(texts)", texts
    )
    assert found == comparison
