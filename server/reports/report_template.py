"""What a report asks: named sections, each a question of its own."""

from dataclasses import dataclass

MOST_SECTIONS = 20
MOST_TITLE_CHARS = 200
MOST_HEADING_CHARS = 120


@dataclass(frozen=True)
class TemplateSection:
    """A heading and its question; with `choices` the answer is one of them."""

    heading: str
    question: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportTemplate:
    """The sections in their order. None knows of another's answer: each is asked as if it was the only one."""

    title: str
    sections: tuple[TemplateSection, ...]


# For whoever brings none: what a reader of a slide says first, worded openly so that nothing is suggested.
DEFAULT_TEMPLATE = ReportTemplate(
    "Draft report",
    (
        TemplateSection("Tissue", "What kind of tissue is this?"),
        TemplateSection("Findings", "Describe the main histological findings of this slide."),
        TemplateSection("Assessment", "What is the most likely diagnosis, and what speaks against it?"),
    ),
)
