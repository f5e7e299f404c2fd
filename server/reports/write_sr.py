"""A report of a slide that came as DICOM, as an Enhanced SR document by TID 1500.

    Imaging Measurement Report (TID 1500)           PRELIMINARY, PARTIAL, UNVERIFIED
    ├── language, the model as device observer      no person observes, and none verifies
    ├── procedure reported
    ├── Comment…                                    that it is a draft, the notice, what the model was
    └── Qualitative Evaluations
        └── TEXT…                                   a section: heading as concept, answer as value
            ├── Question, and the heading where it is longer than a code's meaning
            ├── Comment…                            doubts, shares of choices
            └── IMAGE                               the level of full resolution

Nothing is measured and nobody has coded what a model says, so there is no measurement group, and the concepts of the
sections are codes of our own (scheme 99EYEPIECE): readers show their meaning. Patient and study are those of the
source's own headers, which the caller brings; what was said of the slide to this server is not written into them.

Needs highdicom (`pip install eyepiece[sr]`), which the API's image does not have (docs/decisions/0077).
"""

import hashlib
import io
from collections.abc import Sequence

from highdicom import UID
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from server.reports.report_record import ReportRecord, ReportSection
from server.reports.write_text import DRAFT, answer_text, choice_lines, printable

_SCHEME = "99EYEPIECE"
# DICOM's LO: series descriptions and the meanings of codes.
_LINE_CHARS = 64
_SERIES_NUMBER = 1
# Attributes of patient and study that must be there and may be empty (type 2); some scanners leave them out.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_ENGLISH = CodedConcept("en", "RFC5646", "English")
# As in FHIR: LOINC 11526-1.
_PATHOLOGY_STUDY = CodedConcept("11526-1", "LN", "Pathology study")
# Container of TID 1500's rows for what is said in words or codes about the whole.
_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
_COMMENT = CodedConcept("121106", "DCM", "Comment")
_SOURCE = CodedConcept("111040", "DCM", "Original Source")
_QUESTION = CodedConcept("question", _SCHEME, "Question")
_HEADING = CodedConcept("heading", _SCHEME, "Heading")


def report_sr(report: ReportRecord, source: Sequence[Dataset]) -> bytes:
    """The document as a DICOM file, in explicit little endian. `source` are the headers of the slide's instances, one
    at least. The same report gives the same SOP Instance UID, so that an archive keeps it once.

    Raises:
        ValueError: a header lacks what a document must repeat, such as a UID, or is of another study.
    """
    if {str(it.get("StudyInstanceUID")) for it in source} != {report.slide.study_uid}:
        raise ValueError("the headers are not those of the report's study")
    evidence = [_with_all_of_a_patient(it) for it in source]
    document = EnhancedSR(
        evidence=evidence,
        content=_content(report, _largest(evidence)),
        series_instance_uid=_uid("series", str(report.slide.series_uid)),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=_uid("report", report.id),
        instance_number=report.number,
        manufacturer="Eyepiece",
        is_complete=False,
        is_final=False,
        is_verified=False,
        series_description=_line(f"DRAFT: {report.title}"),
    )
    document.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: highdicom takes the source's, which answers need not fit into
    moment = report.created_at
    document.ContentDate, document.ContentTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    document.TimezoneOffsetFromUTC = "+0000"
    written = io.BytesIO()
    document.save_as(written, enforce_file_format=True)
    return written.getvalue()


def _content(report: ReportRecord, image: Dataset) -> Dataset:
    root: Dataset = ContainerContentItem(name=codes.cid7021.ImagingMeasurementReport, template_id="1500")
    children = ContentSequence()
    children.extend(LanguageOfContentItemAndDescendants(_ENGLISH))
    children.extend(_observer(report))
    modifier = RelationshipTypeValues.HAS_CONCEPT_MOD
    children.append(CodeContentItem(codes.DCM.ProcedureReported, _PATHOLOGY_STUDY, modifier))
    model = report.model
    facts = f"Model {model.name}, encoder {model.encoder_id}, SHA-256 of the weights {model.weights_digest}."
    for text in (DRAFT, printable(model.notice), printable(facts)):
        children.append(TextContentItem(_COMMENT, text, RelationshipTypeValues.CONTAINS))
    evaluations = ContainerContentItem(_EVALUATIONS, relationship_type=RelationshipTypeValues.CONTAINS)
    evaluations.ContentSequence = ContentSequence()
    for number, section in enumerate(report.sections, 1):
        evaluations.ContentSequence.append(_section(number, section, image))
    children.append(evaluations)
    root.ContentSequence = children
    return root


def _observer(report: ReportRecord) -> ObservationContext:
    """The model, named by its weights and its encoder: other weights are another device."""
    device = DeviceObserverIdentifyingAttributes(
        uid=_uid("model", report.model.weights_digest, report.model.encoder_id),
        name=f"Eyepiece, model {report.model.name}",
        manufacturer_name="Eyepiece",
        model_name=report.model.name,
        serial_number=report.model.weights_digest,
    )
    context = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return ObservationContext(observer_device_context=context)


def _section(number: int, section: ReportSection, image: Dataset) -> ContentItem:
    heading = _words(section.heading)
    concept = CodedConcept(f"section-{number}", _SCHEME, _line(heading))
    item = TextContentItem(concept, answer_text(section), RelationshipTypeValues.CONTAINS)
    below = ContentSequence()
    if concept.CodeMeaning != heading:
        below.append(TextContentItem(_HEADING, heading, RelationshipTypeValues.HAS_CONCEPT_MOD))
    below.append(TextContentItem(_QUESTION, printable(section.question), RelationshipTypeValues.HAS_CONCEPT_MOD))
    doubts = [f"Doubt ({it.code}): {printable(it.detail)}" for it in section.warnings]
    for text in (*doubts, *choice_lines(section)):
        below.append(TextContentItem(_COMMENT, text, RelationshipTypeValues.HAS_PROPERTIES))
    below.append(
        ImageContentItem(
            _SOURCE, image.SOPClassUID, image.SOPInstanceUID, relationship_type=RelationshipTypeValues.INFERRED_FROM
        )
    )
    item.ContentSequence = below
    return item


def _with_all_of_a_patient(header: Dataset) -> Dataset:
    """The header, with an empty value for what it does not say."""
    whole = Dataset()
    whole.update(header)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in whole:
            setattr(whole, keyword, None)
    return whole


def _largest(source: Sequence[Dataset]) -> Dataset:
    """The level of full resolution."""
    return max(source, key=lambda it: int(it.get("TotalPixelMatrixColumns") or it.get("Columns") or 0))


def _uid(*named: str) -> str:
    """A UID below 2.25 of what is named, always the same."""
    digest = hashlib.sha256("\n".join(named).encode()).digest()[:16]
    return str(UID(f"2.25.{int.from_bytes(digest, 'big')}"))


def _line(text: str) -> str:
    """As DICOM's LO: no backslash, which separates values, and cut where it is too long."""
    words = _words(text).replace("\\", "/")
    return words if len(words) <= _LINE_CHARS else f"{words[: _LINE_CHARS - 1].rstrip()}…"


def _words(text: str) -> str:
    return " ".join(printable(text).split())
