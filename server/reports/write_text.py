"""A report as plain text, for people and for systems that take nothing else. All forms begin with what it is."""

from collections.abc import Iterator

from server.reports.report_record import ReportRecord, ReportSection

# Whoever has one page, or one field, of a report must see it there.
DRAFT = "DRAFT, not a diagnosis. Written by a language model; nobody has read or signed it."


def report_text(report: ReportRecord) -> str:
    """The whole report, in UTF-8's characters and without control characters of the model's."""
    lines = [printable(report.title), "=" * 72, DRAFT, printable(report.model.notice), ""]
    lines += [f"{name + ':':<16}{printable(text)}" for name, text in facts(report)]
    for section in report.sections:
        lines += ["", printable(section.heading), "-" * 72, f"Asked: {printable(section.question)}", ""]
        lines.append(answer_text(section))
        lines += [f"Doubt: {printable(doubt.detail)}" for doubt in section.warnings]
        lines += choice_lines(section)
    return "\n".join([*lines, "", DRAFT, ""])


def facts(report: ReportRecord) -> Iterator[tuple[str, str]]:
    """What must stand beside a report, as name and text."""
    said = report.slide.metadata
    for name, text in (
        ("Accession", said.accession),
        ("Case", said.case),
        ("Patient", said.patient_ref),
        ("Body site", said.body_site),
        ("Stain", said.stain),
        ("File", report.slide.filename),
        ("Slide", report.slide.id),
        ("Series", report.slide.series_uid),
        ("Status", report.status),
        ("Report", f"{report.number} ({report.id})"),
        ("Written", report.created_at.strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("Model", report.model.name),
        ("Weights", report.model.weights_digest),
        ("Encoder", report.model.encoder_id),
    ):
        if text:
            yield name, text


def choice_lines(section: ReportSection) -> list[str]:
    """Of a closed question its choices, with their shares."""
    if not section.choices:
        return []
    shares = ", ".join(f"{printable(it.text)} {it.probability:.2f}" for it in section.choices)
    return [f"Shares of the choices, not calibrated: {shares}"]


def answer_text(section: ReportSection) -> str:
    """The answer, or that there is none."""
    return printable(section.answer).strip() or "(The model answered with nothing.)"


def printable(text: str) -> str:
    """The text without control characters but line breaks and tabs."""
    return "".join(char for char in text.replace("\r\n", "\n") if char in "\n\t" or char.isprintable())
