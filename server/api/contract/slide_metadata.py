"""What is said of slides, in queries and bodies: described once for the OpenAPI document."""

from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.uploads.slide_metadata import (
    METADATA_FIELDS,
    MOST_LABELS,
    MOST_METADATA_CHARS,
    SlideMetadata,
    label_text,
    metadata_text,
    require_labels,
)

SAID_OF_SLIDES = {
    "accession": "Number of the order in the laboratory's system.",
    "case": "What groups it with other slides; upper and lower case are the same.",
    "patient_ref": "A reference to the patient, best a pseudonym. It is in no path, no log and no metric.",
    "stain": "Of the slide, e.g. HE.",
    "body_site": "Where the tissue is from.",
}
_NO_BLANKS_AROUND = r"^\S(.*\S)?$"
_BOUNDS: dict[str, Any] = {"min_length": 1, "max_length": MOST_METADATA_CHARS}
_Text = Annotated[
    str, Field(**_BOUNDS, json_schema_extra={"pattern": _NO_BLANKS_AROUND}), AfterValidator(metadata_text)
]
_Label = Annotated[
    str, Field(**_BOUNDS, json_schema_extra={"pattern": r"^[^\s,]([^,]*[^\s,])?$"}), AfterValidator(label_text)
]


class SlideChanges(BaseModel):
    """What is said of a slide from now on. What is left out stays; null says nothing any more."""

    model_config = ConfigDict(extra="forbid")

    accession: _Text | None = Field(None, description=SAID_OF_SLIDES["accession"], examples=["A26-004711"])
    case: _Text | None = Field(None, description=SAID_OF_SLIDES["case"], examples=["S26-0815"])
    patient_ref: _Text | None = Field(None, description=SAID_OF_SLIDES["patient_ref"], examples=["p-5f2c"])
    stain: _Text | None = Field(None, description=SAID_OF_SLIDES["stain"], examples=["HE"])
    body_site: _Text | None = Field(None, description=SAID_OF_SLIDES["body_site"], examples=["breast, left"])
    labels: Annotated[list[_Label], Field(max_length=MOST_LABELS)] | None = Field(
        None, description="Words of your own, without commas, in place of all that were said.", examples=[["teaching"]]
    )

    def applied_to(self, metadata: SlideMetadata) -> SlideMetadata:
        """What is said then."""
        changes = {field: getattr(self, field) for field in METADATA_FIELDS if field in self.model_fields_set}
        if "labels" in changes:
            changes["labels"] = require_labels(changes["labels"] or [])
        return metadata.model_copy(update=changes)


def _searched(described: str, example: str) -> Any:
    return Query(max_length=MOST_METADATA_CHARS, description=described, examples=[example])


async def _searched_metadata(
    accession: Annotated[str, _searched("Only slides of this accession.", "A26-004711")] = "",
    case: Annotated[str, _searched("Only slides of this case.", "S26-0815")] = "",
    patient_ref: Annotated[str, _searched("Only slides with this reference.", "p-5f2c")] = "",
    stain: Annotated[str, _searched("Only slides with this stain.", "HE")] = "",
    body_site: Annotated[str, _searched("Only slides from there.", "breast, left")] = "",
    label: Annotated[str, _searched("Only slides with this label.", "teaching")] = "",
) -> SlideMetadata:
    """What is looked for: whole texts, upper and lower case are the same."""
    said = {"accession": accession, "case": case, "patient_ref": patient_ref, "stain": stain, "body_site": body_site}
    labels = (label,) if label else ()
    return SlideMetadata(**{name: text or None for name, text in said.items()}, labels=labels)


SearchedMetadata = Annotated[SlideMetadata, Depends(_searched_metadata)]
