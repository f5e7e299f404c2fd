"""A report as text, PDF and FHIR: what it says is in all of them, and what it is cannot be overlooked in any."""

import base64
import copy
import re
import subprocess
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from fhir_schema import require_r4

from server.reports.report_record import (
    ReportedChoice,
    ReportedDoubt,
    ReportedModel,
    ReportedSlide,
    ReportRecord,
    ReportSection,
)
from server.reports.write_fhir import diagnostic_report
from server.reports.write_pdf import report_pdf
from server.reports.write_text import DRAFT, report_text
from server.uploads.slide_metadata import SlideMetadata

NOTICE = "Research use only. Not a medical device, not a diagnosis."
DOUBT = ReportedDoubt(code="unlike_training", detail="The tissue lies far from what the model was made for.")
SAID = SlideMetadata(accession="A26-0047", case="S26-0815", patient_ref="p-5f2c", stain="HE", body_site="breast, left")
FINDINGS = "Glands ≥ 3 mm², α-SMA positive; Łódź.\n\nNo necrosis <b>here</b> & there."


def report(*sections: ReportSection, **changes: Any) -> ReportRecord:
    kept = sections or (
        ReportSection(heading="Findings", question="What is seen?", answer=FINDINGS, warnings=(DOUBT,)),
        ReportSection(
            heading="Necrosis",
            question="Is there necrosis?",
            answer="No",
            choices=(ReportedChoice(text="Yes", probability=0.25), ReportedChoice(text="No", probability=0.75)),
        ),
    )
    record = ReportRecord(
        id="rep_" + "0c" * 16,
        number=3,
        title="Draft report",
        created_at=datetime(2026, 11, 30, 3, 4, 5, 678000, tzinfo=UTC),
        request_id="6f1c2f9d8b7a4e10",
        slide=ReportedSlide(
            id="5e" * 32, filename="a.dcm", study_uid="1.2.840.1", series_uid="1.2.840.2", metadata=SAID
        ),
        model=ReportedModel(name="demo", weights_digest="ab" * 32, encoder_id="0123456789abcdef", notice=NOTICE),
        sections=kept,
    )
    return record.model_copy(update=changes)


PLAIN = report(slide=ReportedSlide(id="5e" * 32, filename="a.svs"))
EMPTY = report(ReportSection(heading="Findings", question="What?", answer="  \n"))
HOSTILE = report(
    ReportSection(
        heading="</th><script>", question="{nb} ]]>", answer="\x1b[2J\u202e<img src=x onerror=y>\ud7ff 中文 {nb}"
    ),
    title="<b>\x00title</b>",
)


@pytest.mark.parametrize("record", [report(), PLAIN, EMPTY, HOSTILE], ids=["all", "plain", "empty", "hostile"])
def test_fhir_has_the_structure_of_r4(record: ReportRecord) -> None:
    from fhir.resources.R4B.diagnosticreport import DiagnosticReport

    resource = diagnostic_report(record)

    require_r4(resource)
    assert DiagnosticReport.model_validate(copy.deepcopy(resource)).status == "preliminary"
    ET.fromstring(resource["text"]["div"])


def test_the_schema_finds_what_is_wrong() -> None:
    wrong: list[tuple[str, Any]] = [("status", "nope"), ("issued", "today"), ("result", "x"), ("conclusions", "x")]
    for field, value in wrong:
        with pytest.raises(AssertionError):
            require_r4(diagnostic_report(report()) | {field: value})
    without = diagnostic_report(report()) | {"result": []}
    with pytest.raises(AssertionError):
        require_r4(without)


def test_fhir_is_a_draft_and_says_by_whom() -> None:
    resource = diagnostic_report(report())
    device, specimen, *observations = resource["contained"]

    assert (resource["status"], resource["id"]) == ("preliminary", "rep-" + "0c" * 16)
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", resource["id"])
    assert "conclusion" not in resource
    assert "resultsInterpreter" not in resource
    assert resource["issued"] == "2026-11-30T03:04:05.678Z"
    assert resource["subject"] == {
        "type": "Patient",
        "identifier": {"system": "urn:eyepiece:patient_ref", "value": "p-5f2c"},
    }
    assert resource["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.840.1"
    assert [it["value"] for it in resource["identifier"]] == ["rep_" + "0c" * 16, "A26-0047"]
    assert [it["value"] for it in device["version"]] == ["ab" * 32, "0123456789abcdef"]
    assert device["note"][0]["text"] == NOTICE
    assert specimen["accessionIdentifier"]["value"] == "A26-0047"
    assert [it["status"] for it in observations] == ["preliminary"] * 2
    assert [it["valueString"] for it in observations] == [FINDINGS, "No"]
    assert {it["device"]["reference"] for it in observations} == {"#model"}
    notes = [note["text"] for it in observations for note in it["note"]]
    assert f"Doubt (unlike_training): {DOUBT.detail}" in notes
    assert notes.count(DRAFT) == 2
    form = resource["presentedForm"][0]
    assert base64.b64decode(form["data"]).decode() == report_text(report())


def test_nobody_is_named_of_whom_nothing_was_said() -> None:
    resource = diagnostic_report(PLAIN)

    assert "subject" not in resource
    assert "imagingStudy" not in resource
    assert len(resource["identifier"]) == 1


def test_a_model_that_answered_with_nothing_has_given_no_value() -> None:
    (observation,) = diagnostic_report(EMPTY)["contained"][2:]

    assert "valueString" not in observation
    assert observation["dataAbsentReason"]["text"] == "The model answered with nothing."
    assert "(The model answered with nothing.)" in report_text(EMPTY)


def test_text_says_all_and_begins_with_what_it_is() -> None:
    text = report_text(report())

    assert text.splitlines()[2] == DRAFT
    assert text.rstrip().endswith(DRAFT)
    for said in (NOTICE, FINDINGS, DOUBT.detail, "Yes 0.25, No 0.75", "ab" * 32, "0123456789abcdef", "A26-0047"):
        assert said in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", report_text(HOSTILE))


def pdf_text(content: bytes, folder: Path) -> list[str]:
    """What a reader of the PDF sees, page by page."""
    if which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    (folder / "report.pdf").write_bytes(content)
    command = ["pdftotext", "-layout", "-enc", "UTF-8", str(folder / "report.pdf"), "-"]
    shown = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    return shown.rstrip("\f\n").split("\f")


def test_a_pdf_has_what_it_is_on_every_page(tmp_path: Path) -> None:
    long = report(*(ReportSection(heading=f"Part {n}", question="What?", answer="Glands. " * 300) for n in range(5)))

    pages = pdf_text(report_pdf(long), tmp_path)

    assert len(pages) >= 3
    for number, page in enumerate(pages, 1):
        assert DRAFT in page
        assert f"preliminary · page {number}" in page


def test_a_pdf_says_all_in_the_letters_of_the_answer(tmp_path: Path) -> None:
    content = report_pdf(report())
    (page,) = pdf_text(content, tmp_path)

    assert content.startswith(b"%PDF-")
    for said in (NOTICE, DOUBT.detail, "Glands ≥ 3 mm², α-SMA positive; Łódź.", "No necrosis <b>here</b> & there."):
        assert said in page
    for said in ("Yes 0.25, No 0.75", "ab" * 32, "0123456789abcdef", "A26-0047", "p-5f2c", "5e" * 32):
        assert said in page
    assert "cannot be drawn" not in page


def test_what_a_pdf_cannot_draw_is_not_left_out(tmp_path: Path) -> None:
    (page,) = pdf_text(report_pdf(HOSTILE), tmp_path)

    assert "[U+4E2D][U+6587] {nb}" in page
    assert "<img src=x onerror=y>" in page
    assert "<b>title</b>" in page
    assert re.search(r"\d characters cannot be drawn", page)
