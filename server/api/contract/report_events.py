"""Events of a report that is being written, for the OpenAPI document."""

from typing import Any

from pydantic import Field

from server.api.contract.events import AnswerNotice, AnswerToken, event, one_of
from server.reports.report_record import ReportSection


class ReportBegun(AnswerNotice):
    """Data of the event `report`, the first: what will be written, and what must be known to read it."""

    title: str
    sections: list[str] = Field(description="The headings, in their order.")


class ReportToken(AnswerToken):
    """Data of the event `token`: the next piece of a section's answer."""

    section: int = Field(description="Number of the section, from 1.")


class WrittenSection(ReportSection):
    """Data of the event `section`: a section is written. It is kept only with the whole report."""

    section: int = Field(description="Its number, from 1.")


REPORT_EVENT_SCHEMAS: dict[str, Any] = {
    "ReportBegunEvent": event("report", "ReportBegun", "What will be written; the first event."),
    "ReportTokenEvent": event("token", "ReportToken", "Text of a section's answer, as it is written."),
    "ReportSectionEvent": event("section", "WrittenSection", "A section's whole answer."),
    "ReportDoneEvent": event("done", "Report", "The report as it is kept; the last event."),
    "ReportEvent": one_of(
        "An event of a report: `report`, `token` … and `section` …, then `done`, or `error`: nothing is kept then.",
        "ReportBegunEvent",
        "ReportTokenEvent",
        "ReportSectionEvent",
        "ReportDoneEvent",
        "ErrorEvent",
    ),
}
