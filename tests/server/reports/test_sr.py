"""A report as DICOM SR: read back by pydicom and by DCMTK, it says all that the report says, and what it is.

Needs highdicom (`make check-sr`), and `dsrdump` of Debian's dcmtk for the second reader.
"""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from server.reports.report_record import (
    ReportedChoice,
    ReportedDoubt,
    ReportedModel,
    ReportedSlide,
    ReportRecord,
    ReportSection,
)
from server.reports.write_text import DRAFT
from server.uploads.slide_metadata import SlideMetadata

pytest.importorskip("highdicom", reason="highdicom is not installed (make check-sr)")
STUDY, SERIES, WSI = "1.2.840.1", "1.2.840.2", "1.2.840.10008.5.1.4.1.1.77.1.6"
ANSWER = "Glands ≥ 3 mm², α-SMA positive; Łódź.\nNo necrosis <b>here</b> & there \\ elsewhere. 中"
LONG = "What a heading is called that has more characters than a meaning of DICOM takes, which are 64"
NOTICE = "Research use only. Not a medical device, not a diagnosis."


def header(number: int = 1, **attributes: Any) -> Dataset:
    """Of an instance; the first has full resolution."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = WSI, f"1.2.840.3.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = STUDY, SERIES, "SM"
    made.TotalPixelMatrixColumns = 4096 // number
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def report(**changes: Any) -> ReportRecord:
    sections = (
        ReportSection(
            heading="Findings",
            question="What is seen?",
            answer=ANSWER,
            warnings=(ReportedDoubt(code="unlike_training", detail="It lies far from the training."),),
        ),
        ReportSection(
            heading=LONG,
            question="Is there necrosis?",
            answer=" ",
            choices=(ReportedChoice(text="Yes", probability=0.25), ReportedChoice(text="No", probability=0.75)),
        ),
    )
    record = ReportRecord(
        id="rep_" + "0c" * 16,
        number=3,
        title="Draft\\report",
        created_at="2026-11-30T03:04:05.678Z",  # type: ignore[arg-type]  # pydantic reads it
        slide=ReportedSlide(
            id="5e" * 32,
            filename="a.dcm",
            study_uid=STUDY,
            series_uid=SERIES,
            metadata=SlideMetadata(accession="A26-0047", patient_ref="p-5f2c"),
        ),
        model=ReportedModel(name="demo", weights_digest="ab" * 32, encoder_id="0123456789abcdef", notice=NOTICE),
        sections=sections,
    )
    return record.model_copy(update=changes)


def written(record: ReportRecord | None = None, *source: Dataset) -> bytes:
    from server.reports.write_sr import report_sr

    return report_sr(record or report(), source or (header(2), header(1)))


def texts(item: Dataset) -> Iterator[tuple[str, str, str]]:
    """Of the whole tree: relationship, meaning of the concept, text."""
    for below in item.get("ContentSequence", ()):
        if "TextValue" in below:
            yield below.RelationshipType, below.ConceptNameCodeSequence[0].CodeMeaning, below.TextValue
        yield from texts(below)


def test_it_says_what_the_report_says_and_what_it_is() -> None:
    read = dcmread(io.BytesIO(written()))

    said = list(texts(read))
    assert (read.PreliminaryFlag, read.CompletionFlag, read.VerificationFlag) == (
        "PRELIMINARY",
        "PARTIAL",
        "UNVERIFIED",
    )
    assert ("CONTAINS", "Findings", ANSWER) in said
    assert ("HAS CONCEPT MOD", "Question", "What is seen?") in said
    assert ("HAS PROPERTIES", "Comment", "Doubt (unlike_training): It lies far from the training.") in said
    assert ("HAS PROPERTIES", "Comment", "Shares of the choices, not calibrated: Yes 0.25, No 0.75") in said
    assert ("HAS CONCEPT MOD", "Heading", LONG) in said
    assert ("CONTAINS", f"{LONG[:63]}…", "(The model answered with nothing.)") in said
    comments = [text for how, meaning, text in said if (how, meaning) == ("CONTAINS", "Comment")]
    assert comments[:2] == [DRAFT, NOTICE]
    assert all(part in comments[2] for part in ("demo", "0123456789abcdef", "ab" * 32))
    assert read.SeriesDescription == "DRAFT: Draft/report"
    assert (read.ContentDate, read.ContentTime, read.TimezoneOffsetFromUTC) == ("20261130", "030405.678000", "+0000")
    assert read.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    observers = [
        it.ConceptCodeSequence[0].CodeMeaning
        for it in read.ContentSequence
        if it.ConceptNameCodeSequence[0].CodeMeaning == "Observer Type"
    ]
    assert observers == ["Device"]


def test_patient_and_study_are_the_sources_and_nothing_said_of_the_slide_is_in_it() -> None:
    content = written(None, header(PatientName="Łoś^Ωmega", PatientID="P1", AccessionNumber="ACC-9"))

    read = dcmread(io.BytesIO(content))
    assert (str(read.PatientName), read.PatientID, read.AccessionNumber) == ("Łoś^Ωmega", "P1", "ACC-9")
    assert (read.StudyInstanceUID, read.Modality) == (STUDY, "SR")
    assert read.SeriesInstanceUID != SERIES
    assert b"A26-0047" not in content
    assert b"p-5f2c" not in content


def test_the_same_report_is_the_same_instance_and_names_the_level_of_full_resolution() -> None:
    one, same = (dcmread(io.BytesIO(written())) for _ in range(2))
    other = dcmread(io.BytesIO(written(report(id="rep_" + "0d" * 16))))

    assert one.SOPInstanceUID == same.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    (evaluations,) = [it for it in one.ContentSequence if it.ValueType == "CONTAINER"]
    images = [below for it in evaluations.ContentSequence for below in it.ContentSequence if below.ValueType == "IMAGE"]
    assert {it.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for it in images} == {"1.2.840.3.1"}
    assert len(images) == 2


def test_headers_of_another_study_are_refused() -> None:
    with pytest.raises(ValueError, match="study"):
        written(None, header(StudyInstanceUID="1.9"))


@pytest.mark.skipif(which("dsrdump") is None, reason="needs dsrdump (Debian: dcmtk)")
@pytest.mark.parametrize("attributes", [{}, {"PatientName": "Łoś^Ωmega", "SpecificCharacterSet": "ISO_IR 101"}])
def test_another_reader_accepts_it(tmp_path: Path, attributes: dict[str, str]) -> None:
    (tmp_path / "r.dcm").write_bytes(written(None, header(**attributes)))

    dumped = subprocess.run(["dsrdump", "+Pl", tmp_path / "r.dcm"], capture_output=True, text=True, check=False)

    assert dumped.returncode == 0, dumped.stderr
    assert "E:" not in dumped.stderr
    assert 'TEXT:(,,"Findings")="Glands ≥ 3 mm², α-SMA positive' in dumped.stdout
    assert "PRELIMINARY" in dumped.stdout
