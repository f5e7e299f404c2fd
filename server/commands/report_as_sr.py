"""A kept report as a DICOM SR document, made where the command runs: the server does not carry what writes it."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode

if TYPE_CHECKING:
    from server.reports.report_record import ReportRecord


def require_sr(client: ApiClient, slide_id: str) -> None:
    """Before a model is asked: can there be a document about this slide?

    Raises:
        CommandError: highdicom is not installed, or the slide is no DICOM series.
    """
    if find_spec("highdicom") is None:
        raise CommandError("DICOM SR needs highdicom: pip install 'eyepiece[sr]'.", ExitCode.USAGE)
    if client.slide(slide_id)["series_uid"] is None:
        sentence = "This slide did not come as DICOM, so there is no study that a DICOM SR could belong to; take fhir."
        raise CommandError(sentence, ExitCode.USAGE)


def report_as_sr(client: ApiClient, slide_id: str, number: int) -> bytes:
    """The DICOM file. Patient and study are read from the headers of the slide's own instances.

    Raises:
        CommandError: the server has no such report or headers, or a header lacks what the document must repeat.
    """
    from server.reports.report_record import ReportRecord

    record = ReportRecord.model_validate_json(client.report(slide_id, number, "json"))
    headers = client.dicom_headers(str(record.slide.study_uid), str(record.slide.series_uid))
    try:
        return _written(record, headers)
    except (ValueError, AttributeError) as error:  # pydicom and highdicom say so what a header lacks
        sentence = f"The slide's headers do not do for a DICOM SR ({error}); report {number} is kept: take fhir."
        raise CommandError(sentence, ExitCode.FAILED) from error


def _written(record: "ReportRecord", headers: list[dict[str, Any]]) -> bytes:
    from pydicom.dataset import Dataset

    from server.reports.write_sr import report_sr

    return report_sr(record, [Dataset.from_json(header) for header in headers])
