"""Reports that the server keeps: written from a template, followed, read, taken along, deleted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_findings import grave_findings
from browsed_page import Browsed
from running_server import RunningServer


@pytest.fixture(autouse=True)
def without_reports(server: RunningServer, slide: dict[str, Any]) -> Iterator[None]:
    """The slide has none, before and afterwards."""
    yield
    with server.client() as client:
        for entry in client.get(f"/v1/slides/{slide['id']}/reports").json()["data"]:
            client.delete(f"/v1/slides/{slide['id']}/reports/{entry['number']}")


async def opened(page: Browsed, slide: dict[str, Any]) -> Any:
    """The dialog about the slide, with the form open."""
    await page.open(slide["id"])
    await page.window.locator("#reports-opener").click()
    dialog = page.window.locator("#reports")
    await dialog.get_by_text("Write a new one").click()
    return dialog


async def own_sections(dialog: Any, *sections: tuple[str, str]) -> None:
    await dialog.get_by_label("sections of your own").check()
    for number, (heading, question) in enumerate(sections, 1):
        if number > 1:
            await dialog.get_by_role("button", name="Add a section").click()
        await dialog.get_by_label(f"Heading of section {number}").fill(heading)
        await dialog.get_by_label(f"Question of section {number}").fill(question)


async def test_the_servers_own_template_is_written_read_and_taken_along(page: Browsed, slide: dict[str, Any]) -> None:
    window = page.window
    dialog = await opened(page, slide)
    assert await grave_findings(window) == []

    await dialog.locator("#write-report").click()

    await dialog.get_by_role("heading", name="Assessment").wait_for()
    await dialog.locator(".report-forms").wait_for()
    assert await dialog.locator(".report-section h4").all_inner_texts() == ["Tissue", "Findings", "Assessment"]
    said = await dialog.inner_text()
    assert "nobody has read or signed" in said
    assert "preliminary" in said
    assert await window.locator("#notice-text").inner_text() in said
    assert await grave_findings(window) == []
    for form, begin in (("PDF", b"%PDF-"), ("FHIR", b"{"), ("Text", b"")):
        async with window.expect_download() as downloading:
            await dialog.get_by_role("button", name=form, exact=True).click()
        download = await downloading.value
        content = Path(await download.path()).read_bytes()
        assert content.startswith(begin)
        assert slide["filename"] not in download.suggested_filename
        if form == "FHIR":
            assert json.loads(content)["status"] == "preliminary"
    await dialog.get_by_role("button", name="All reports").click()
    await dialog.locator(".report-list li").get_by_role("button", name="Delete report").click()  # there is one
    await window.get_by_role("button", name="Delete the report").click()
    await dialog.get_by_text("There are none yet.").wait_for()


async def test_a_report_is_followed_section_by_section_with_the_dialog_closed_too(
    page: Browsed, slide: dict[str, Any]
) -> None:
    window = page.window
    dialog = await opened(page, slide)
    await own_sections(dialog, ("Pattern", "What is the growth pattern?"), ("Long", "Say it slowly."))
    await dialog.get_by_label("Title").fill("Two sections")
    await dialog.locator("#write-report").click()
    await dialog.locator(".run-status", has_text="Section 2 of 2: Long").wait_for()
    assert "glandular" in await dialog.locator(".run-sections li.complete").inner_text()
    await dialog.get_by_text("word3").wait_for()
    assert await grave_findings(window) == []

    await window.keyboard.press("Escape")

    opener = window.locator("#reports-opener")
    await opener.filter(has_text="1 of 2").wait_for()
    await opener.click()
    await dialog.locator("#stop-report").click()
    await dialog.get_by_text("Stopped; nothing was kept.").wait_for()
    await dialog.get_by_text("There are none yet.").wait_for()
    assert await opener.inner_text() == "Reports"


async def test_what_broke_off_is_not_kept_and_what_was_typed_is(page: Browsed, slide: dict[str, Any]) -> None:
    dialog = await opened(page, slide)
    await own_sections(dialog, ("One", "This breaks in a report."), ("One", "What is the growth pattern?"))
    await dialog.locator("#write-report").click()
    await dialog.get_by_text("Two sections have the same heading").wait_for()
    await dialog.get_by_label("Heading of section 2").fill("Two")

    await dialog.locator("#write-report").click()

    await dialog.get_by_text("was not written to its end, and nothing was kept").wait_for()
    await dialog.get_by_text("There are none yet.").wait_for()
    await dialog.get_by_text("Write a new one").click()
    assert await dialog.get_by_label("Question of section 1").input_value() == "This breaks in a report."
    await dialog.locator("#write-report").click()
    await dialog.locator(".report-forms").wait_for()
    assert await dialog.locator(".report-section").count() == 2


async def test_sections_come_from_the_file_that_the_command_line_takes(
    page: Browsed, slide: dict[str, Any], tmp_path: Path
) -> None:
    template = tmp_path / "template.json"
    sections = [{"heading": "Pattern", "question": "What is the growth pattern?"}]
    dialog = await opened(page, slide)
    await dialog.get_by_label("sections of your own").check()

    template.write_text("{}")
    await dialog.locator('input[type="file"]').set_input_files(template)
    await dialog.get_by_text("This file is no template").wait_for()
    template.write_text(json.dumps({"title": "From a file", "sections": sections}))
    await dialog.locator('input[type="file"]').set_input_files(template)
    await dialog.get_by_role("button", name="Write the report").click()

    await dialog.locator(".report-title", has_text="From a file").wait_for()
    await dialog.get_by_text("The growth pattern is glandular.").wait_for()


async def test_at_320_px_the_form_and_a_report_are_whole(
    page: Browsed, slide: dict[str, Any], server: RunningServer
) -> None:
    with server.client() as client:
        client.post(f"/v1/slides/{slide['id']}/reports", json={"stream": False})
    await page.window.set_viewport_size({"width": 320, "height": 640})
    dialog = await opened(page, slide)
    fits = "() => [...document.querySelectorAll('#reports, #reports *')].every(it => it.scrollWidth <= 320)"
    assert await page.window.evaluate(fits)
    await dialog.locator(".report-list .report-name").click()
    await dialog.locator(".report-forms").wait_for()
    assert await page.window.evaluate(fits)
