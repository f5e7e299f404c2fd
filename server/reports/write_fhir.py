"""A report as FHIR R4 DiagnosticReport (https://hl7.org/fhir/R4/diagnosticreport.html).

    DiagnosticReport (preliminary)
    ├── contained Device       the model: its weights' digest, the encoder's id, the notice
    ├── contained Specimen     the slide
    └── contained Observation… one for each section, by that Device

It is always `preliminary`: a model's answers that nobody has signed. It has no `conclusion` and no interpreter, which
are a person's. Who is meant stands as identifiers that the sender gave, never as references that could lead nowhere.
The statuses and codes are our own literals: libraries take any text for them.
"""

import base64
import html
from collections.abc import Iterator
from typing import Any, Literal

from server.reports.report_record import ReportRecord, ReportSection, ReportStatus
from server.reports.write_text import DRAFT, choice_lines, facts, printable, report_text

_STATUS: ReportStatus = "preliminary"
_DEVICE_STATUS: Literal["active"] = "active"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
# HL7 table 0074: "Pathology (gross & histopath, not surgical)".
_PATHOLOGY = {"system": f"{_TERMINOLOGY}/v2-0074", "code": "PAT"}
# LOINC 11526-1, "Pathology study".
_PATHOLOGY_STUDY = {"system": "http://loinc.org", "code": "11526-1", "display": "Pathology study"}
# HL7 table 0203: "Accession ID".
_ACCESSION = {"coding": [{"system": f"{_TERMINOLOGY}/v2-0203", "code": "ACSN"}]}
_MODEL, _SLIDE = "model", "slide"


def diagnostic_report(report: ReportRecord) -> dict[str, Any]:
    """The resource, as JSON has it."""
    sections = [(f"section-{number}", section) for number, section in enumerate(report.sections, 1)]
    moment = report.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = report.slide.metadata
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": report.id.replace("_", "-"),
        "language": "en",
        "text": {"status": "generated", "div": _narrative(report)},
        "contained": [
            _device(report),
            _specimen(report),
            *(_observation(name, section, moment) for name, section in sections),
        ],
        "identifier": [_identifier("report", report.id), *_accession(report)],
        "status": _STATUS,
        "category": [{"coding": [_PATHOLOGY]}],
        "code": {"coding": [_PATHOLOGY_STUDY], "text": f"{_line(report.title)} ({DRAFT})"},
        "issued": moment,
        "specimen": [{"reference": f"#{_SLIDE}"}],
        "result": [{"reference": f"#{name}", "display": _line(section.heading)} for name, section in sections],
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "language": "en",
                "data": base64.b64encode(report_text(report).encode()).decode(),
                "title": _line(report.title),
                "creation": moment,
            }
        ],
    }
    if said.patient_ref:
        resource["subject"] = {"type": "Patient", "identifier": _identifier("patient_ref", said.patient_ref)}
    if report.slide.study_uid:
        study = {"system": "urn:dicom:uid", "value": f"urn:oid:{report.slide.study_uid}"}
        resource["imagingStudy"] = [{"type": "ImagingStudy", "identifier": study}]
    return resource


def _device(report: ReportRecord) -> dict[str, Any]:
    model = report.model
    return {
        "resourceType": "Device",
        "id": _MODEL,
        "identifier": [_identifier("model", model.name)],
        "status": _DEVICE_STATUS,
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "type": {"text": "Language model that answers questions about whole-slide images"},
        "version": [
            {"type": {"text": "SHA-256 of the weights"}, "value": model.weights_digest},
            {"type": {"text": "encoder id"}, "value": model.encoder_id},
        ],
        "note": [{"text": _block(model.notice)}, {"text": DRAFT}],
    }


def _specimen(report: ReportRecord) -> dict[str, Any]:
    said = report.slide.metadata
    specimen: dict[str, Any] = {
        "resourceType": "Specimen",
        "id": _SLIDE,
        "identifier": [_identifier("slide", report.slide.id)],
        "type": {"text": "Whole-slide image"},
    }
    if report.slide.series_uid:
        specimen["identifier"].append({"system": "urn:dicom:uid", "value": f"urn:oid:{report.slide.series_uid}"})
    if said.accession:
        specimen["accessionIdentifier"] = _identifier("accession", said.accession)
    if said.body_site:
        specimen["collection"] = {"bodySite": {"text": _line(said.body_site)}}
    if said.stain:
        specimen["processing"] = [{"description": f"Stain: {_line(said.stain)}"}]
    return specimen


def _observation(name: str, section: ReportSection, moment: str) -> dict[str, Any]:
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "id": name,
        "status": _STATUS,
        "code": {"text": _line(section.heading)},
        "issued": moment,
        "specimen": {"reference": f"#{_SLIDE}"},
        "device": {"reference": f"#{_MODEL}"},
        "method": {"text": f"Asked: {_line(section.question)}"},
        "note": [{"text": _block(text)} for text in (DRAFT, *_doubts(section), *choice_lines(section))],
    }
    answer = _block(section.answer)
    if answer:
        observation["valueString"] = answer
    else:  # FHIR has no empty strings
        unknown = {"system": f"{_TERMINOLOGY}/data-absent-reason", "code": "unknown"}
        observation["dataAbsentReason"] = {"coding": [unknown], "text": "The model answered with nothing."}
    return observation


def _doubts(section: ReportSection) -> Iterator[str]:
    for doubt in section.warnings:
        yield f"Doubt ({doubt.code}): {doubt.detail}"


def _accession(report: ReportRecord) -> Iterator[dict[str, Any]]:
    accession = report.slide.metadata.accession
    if accession:
        yield {"type": _ACCESSION, **_identifier("accession", accession)}


def _identifier(kind: str, value: str) -> dict[str, str]:
    return {"system": f"urn:eyepiece:{kind}", "value": _line(value)}


def _narrative(report: ReportRecord) -> str:
    """XHTML of the few elements that FHIR allows, with every text escaped."""
    rows = "".join(f"<tr><th>{_escaped(name)}</th><td>{_escaped(text)}</td></tr>" for name, text in facts(report))
    sections = "".join(
        f"<h2>{_escaped(it.heading)}</h2><p><i>Asked: {_escaped(it.question)}</i></p><p>{_escaped(it.answer)}</p>"
        + "".join(f"<p><i>{_escaped(text)}</i></p>" for text in (*_doubts(it), *choice_lines(it)))
        for it in report.sections
    )
    return (
        f'<div xmlns="http://www.w3.org/1999/xhtml"><h1>{_escaped(report.title)}</h1><p><b>{_escaped(DRAFT)}</b></p>'
        f"<p>{_escaped(report.model.notice)}</p><table>{rows}</table>{sections}</div>"
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text)).replace("\n", "<br/>")


def _block(text: str) -> str:
    """A text as FHIR's strings are: not empty, with no white space around it."""
    return printable(text).strip()


def _line(text: str) -> str:
    return " ".join(printable(text).split())
