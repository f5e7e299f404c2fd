"""What its sender says a slide is about: its place in the hospital's own books. All of it can lead to a patient, so it
is kept with the tenant's record and is in no path, no log and no metric."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from server.errors import InvalidRequest

# In the order in which fewer slides share one: a search that names several begins with the first.
METADATA_FIELDS = ("accession", "case", "patient_ref", "labels", "body_site", "stain")
# DICOM's LO, its longest name of one line, has 64; identifiers with a prefix that says who gave them are longer.
MOST_METADATA_CHARS = 128
MOST_LABELS = 32
_COMMA = ","


class SlideMetadata(BaseModel):
    """Nothing of it is needed, and nothing is read off the file."""

    model_config = ConfigDict(frozen=True, extra="allow")

    accession: str | None = None
    case: str | None = None
    patient_ref: str | None = None
    labels: tuple[str, ...] = ()
    body_site: str | None = None
    stain: str | None = None

    @property
    def values(self) -> Iterator[tuple[str, str]]:
        """All that is said, labels one by one, in the order of `METADATA_FIELDS`."""
        for field in METADATA_FIELDS:
            said = getattr(self, field)
            for text in said if isinstance(said, tuple) else (said,):
                if text is not None:
                    yield field, text

    def with_said(self, other: "SlideMetadata") -> "SlideMetadata":
        """This, with what `other` says in place of what this says of the same."""
        said = {field: getattr(other, field) for field in METADATA_FIELDS}
        return self.model_copy(update={field: it for field, it in said.items() if it})


NOTHING_SAID = SlideMetadata()


def metadata_text(text: str) -> str:
    """The text itself, if it can be part of what is said of a slide.

    Raises:
        ValueError: it cannot.
    """
    if not 1 <= len(text) <= MOST_METADATA_CHARS or not text.isprintable() or text != text.strip():
        raise ValueError(f"must be 1 to {MOST_METADATA_CHARS} printable characters without blanks around them")
    return text


def label_text(text: str) -> str:
    """The same of one label, which also has no comma: forms and commands separate labels by them."""
    if _COMMA in text:
        raise ValueError("must have no comma")
    return metadata_text(text)


def said_metadata(said: Mapping[str, str]) -> SlideMetadata:
    """What forms say, where labels are one text with commas; other names than those of `METADATA_FIELDS` are left out,
    and so is an empty text.

    Raises:
        InvalidRequest: one of them is too long, or no line of text.
    """
    found: dict[str, str | tuple[str, ...]] = {}
    for field in METADATA_FIELDS:
        text = said.get(field, "")
        try:
            if text and field == "labels":
                found[field] = require_labels([label.strip() for label in text.split(_COMMA)])
            elif text:
                found[field] = metadata_text(text)
        except ValueError as error:  # its sentence holds nothing of the text
            raise InvalidRequest(f"What is said as `{field}` cannot be kept: it {error}.") from error
    return SlideMetadata.model_validate(found)


def require_labels(labels: list[str]) -> tuple[str, ...]:
    """Labels, each once, in their order.

    Raises:
        ValueError: too many, or one is no label.
    """
    once = tuple(dict.fromkeys(label_text(label) for label in labels))
    if len(once) > MOST_LABELS:
        raise ValueError(f"must have at most {MOST_LABELS} labels")
    return once
