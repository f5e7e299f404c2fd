"""A report as PDF: A4, with what it is on every page, and fonts that are embedded.

Text is drawn as it is, by a library without a markup of its own that an answer could be written in. What the font has
no picture of is drawn as its code point, and the last page says so: a character that is left out could be a number.
"""

from functools import lru_cache
from pathlib import Path

from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.enums import XPos, YPos

from server.reports.report_record import ReportRecord
from server.reports.write_text import DRAFT, answer_text, choice_lines, facts, printable

_FONT, _FONTS = "DejaVu", Path(__file__).parent / "fonts"
_REGULAR, _BOLD = _FONTS / "DejaVuSans.ttf", _FONTS / "DejaVuSans-Bold.ttf"
_MARGIN_MM, _NAME_MM, _LINE_MM = 18.0, 28.0, 5.0
_RED, _GREY, _BLACK = (170, 0, 0), (90, 90, 90), (0, 0, 0)
_SMALL, _TEXT, _HEADING, _TITLE = 7.5, 10.0, 12.0, 16.0


def report_pdf(report: ReportRecord) -> bytes:
    """The file. It takes a tenth of a second or more: call it in a thread."""
    page = _Page(report)
    page.first_line(report.title)
    page.notice(report.model.notice)
    for name, text in facts(report):
        page.fact(name, text)
    for section in report.sections:
        page.heading(section.heading)
        page.small(f"Asked: {section.question}")
        page.paragraph(answer_text(section))
        for doubt in section.warnings:
            page.notice(f"Doubt: {doubt.detail}")
        for line in choice_lines(section):
            page.small(line)
    if page.unknown:
        page.notice(
            f"{page.unknown} characters cannot be drawn by this document's font and stand as their code points, like "
            "[U+4E00]; the text and JSON forms of this report have them."
        )
    return page.finished()


class _Page(FPDF):
    """Pages that are written from above; `unknown` counts characters without a picture."""

    def __init__(self, report: ReportRecord) -> None:
        super().__init__(format="A4")
        self.str_alias_nb_pages = ""  # or an answer that holds it would be rewritten
        self._foot = f"Report {report.number} ({report.id}) · slide {report.slide.id[:12]} · {report.status}"
        self.unknown = 0
        self.set_margins(_MARGIN_MM, _MARGIN_MM)
        self.set_auto_page_break(True, margin=22)
        self.add_font(_FONT, "", _REGULAR)
        self.add_font(_FONT, "B", _BOLD)
        self.set_title(self._drawable(report.title))
        self.set_creator("Eyepiece")
        self.set_creation_date(report.created_at)
        self.set_lang("en")
        self.add_page()

    def header(self) -> None:
        """See FPDF: on every page."""
        self._write(DRAFT, _SMALL, _RED, bold=True)
        self.ln(2)

    def footer(self) -> None:
        """See FPDF: on every page."""
        self.set_y(-15)
        self._write(f"{self._foot} · page {self.page_no()}", _SMALL, _GREY)

    def first_line(self, text: str) -> None:
        """The report's title."""
        self._write(text, _TITLE, _BLACK, bold=True, line_mm=8)

    def heading(self, text: str) -> None:
        """Of a section, with what follows on the same page."""
        if self.will_page_break(30):
            self.add_page()
        self.ln(4)
        self._write(text, _HEADING, _BLACK, bold=True, line_mm=7)

    def paragraph(self, text: str) -> None:
        """A paragraph."""
        self._write(text, _TEXT, _BLACK)

    def small(self, text: str) -> None:
        """What stands beside."""
        self._write(text, _SMALL, _GREY, line_mm=4)

    def notice(self, text: str) -> None:
        """What must not be overlooked."""
        self._write(text, _SMALL, _RED, line_mm=4)
        self.ln(1)

    def fact(self, name: str, text: str) -> None:
        """A name and its value."""
        self.set_font(_FONT, "B", _SMALL)
        self.set_text_color(*_GREY)
        self.cell(_NAME_MM, 4, name)
        self._write(text, _SMALL, _BLACK, line_mm=4)

    def finished(self) -> bytes:
        """The file; nothing can be written any more."""
        return bytes(self.output())

    def _write(
        self, text: str, size: float, color: tuple[int, int, int], *, bold: bool = False, line_mm: float = _LINE_MM
    ) -> None:
        self.set_font(_FONT, "B" if bold else "", size)
        self.set_text_color(*color)
        self.multi_cell(0, line_mm, self._drawable(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _drawable(self, text: str) -> str:
        known = _characters()
        drawn = []
        for char in printable(text).replace("\t", "    "):
            is_known = char == "\n" or ord(char) in known
            self.unknown += not is_known
            drawn.append(char if is_known else f"[U+{ord(char):04X}]")
        return "".join(drawn)


@lru_cache(1)
def _characters() -> frozenset[int]:
    """Code points that both faces have."""
    with TTFont(_REGULAR, lazy=True) as regular, TTFont(_BOLD, lazy=True) as bold:
        return frozenset(regular.getBestCmap()) & frozenset(bold.getBestCmap())
